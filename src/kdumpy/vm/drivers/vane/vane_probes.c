// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Pointers that are not there, assertions, numbers, constants, stacks. */
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "vane.h"

/* After "media: dvb-usb: az6027: fix null-ptr-deref in az6027_i2c_xfer()" (CVE-2023-28328). */
static noinline long vane_probe_transfer(struct vane_mast *mast, struct vane_message *message)
{
	if (message->address == 0x99) {
		mast->storms = message->data[4] << 8;
		return message->bytes;
	}
	return -EREMOTEIO;
}

static long vane_talk(struct vane_mast *mast, unsigned long argument)
{
	struct vane_message message = { .address = 0x99 };

	return vane_probe_transfer(mast, &message) + 1;
}

static void vane_deaf_probe(struct vane_mast *mast)
{
	mast->on_ioctl = vane_talk;
}

/* debugfs reads by an operation that this station does not have (vane_registers_read). */
static void vane_blind_register(struct vane_mast *mast)
{
	mast->read_register = NULL;
}

static void vane_direct_answer(struct vane_mast *mast)
{
	mast->storms = 3;
}

/* After "rose: Fix Null pointer dereference in rose_send_frame()": the link's device is gone when the timer fires. */
static noinline void vane_send_beacon(struct vane_uplink *uplink)
{
	uplink->failures += uplink->port->mtu;
}

static void vane_beacon(struct vane_mast *mast)
{
	mast->uplink->heard++;
	vane_send_beacon(mast->uplink);
}

static void vane_late_gust(struct vane_mast *mast)
{
	mast->on_gust = vane_beacon;
	mod_timer(&mast->gust, jiffies + HZ / 5);
}

/* After "rtc: cmos: Fix event handler registration ordering issue": the handler runs before its data are there. */
static noinline void vane_count_strike(struct vane_sensor *lightning)
{
	lightning->last++;
}

static void vane_lightning(struct vane_mast *mast)
{
	vane_count_strike(mast->lightning);
	mast->storms++;
}

static void vane_early_bell(struct vane_mast *mast)
{
	mast->on_strike = vane_lightning;
	irq_work_queue(&mast->strike);
}

/* After "usb: gadget: u_serial: Fix the issue that gs_start_io crashed due to accessing null pointer". */
static noinline void vane_start_listening(struct vane_mast *mast)
{
	mast->storms += READ_ONCE(mast->listener->channel)->tuned;
}

static void vane_closed_port(struct vane_mast *mast)
{
	mast->on_work = vane_start_listening;
	queue_delayed_work(mast->readings, &mast->later, HZ / 4);	/* and the writer closes meanwhile */
}

/* After "md/md-bitmap: synchronize bitmap_get_stats() with bitmap lifetime" (CVE-2025-21712). */
static noinline u64 vane_almanac_stats(struct vane_almanac *almanac)
{
	u64 missing;

	spin_lock(&almanac->lock);
	missing = almanac->missing;
	spin_unlock(&almanac->lock);
	return missing;
}

static void vane_show_almanac(struct vane_mast *mast, struct seq_file *file)
{
	seq_printf(file, "%llu missing\n", vane_almanac_stats(mast->almanac));
}

static void vane_no_almanac(struct vane_mast *mast)
{
	mast->on_show = vane_show_almanac;
}

/* After "HID: check empty report_list in hid_validate_values()" (CVE-2023-1073): the first of an empty list. */
static noinline long vane_first_reading(struct vane_mast *mast, unsigned long argument)
{
	struct vane_probe *probe = list_first_entry(&mast->shelf, struct vane_probe, link);

	return probe->sensor->scale;
}

static void vane_empty_shelf(struct vane_mast *mast)
{
	mast->on_ioctl = vane_first_reading;
}

/* After "mm/slab: make __free(kfree) accept error pointers": the way out frees an error code. */
static noinline long vane_name_site(struct vane_mast *mast, unsigned long argument)
{
	char *label = strndup_user((const char __user *)8, sizeof(mast->site));
	long error = 0;

	if (IS_ERR(label))
		error = PTR_ERR(label);
	else
		strscpy(mast->site, label, sizeof(mast->site));
	kfree(label);
	return error;
}

static void vane_kept_error(struct vane_mast *mast)
{
	mast->on_ioctl = vane_name_site;
}

/* After "NFC: netlink: fix sleep in atomic bug when firmware download timeout" (CVE-2022-1975). */
static noinline void vane_firmware_done(struct vane_mast *mast)
{
	mutex_lock(&mast->firmware);
	mast->storms++;
	mutex_unlock(&mast->firmware);
}

static int vane_download(void *data)
{
	struct vane_mast *mast = data;

	mutex_lock(&mast->firmware);
	ssleep(20);
	mutex_unlock(&mast->firmware);
	return 0;
}

static void vane_sleepy_timer(struct vane_mast *mast)
{
	kthread_run(vane_download, mast, "vane_download");
	mast->on_gust = vane_firmware_done;
	mod_timer(&mast->gust, jiffies + HZ);
}

/* After "drm/nouveau: don't attempt to schedule hpd_work on headless cards": work that was never set up. */
static noinline int vane_resume_screen(struct vane_mast *mast)
{
	schedule_work(&mast->hotplug);
	return 1;
}

static void vane_unborn_work(struct vane_mast *mast)
{
	mast->on_open = vane_resume_screen;
}

/* After "video: fbdev: i740fb: Error out if 'pixclock' equals zero". */
static noinline long vane_set_refresh(struct vane_mast *mast, unsigned long argument)
{
	return 1000000000 / READ_ONCE(mast->pixel_clock);
}

static void vane_no_clock(struct vane_mast *mast)
{
	mast->on_ioctl = vane_set_refresh;
}

/* After dyndbg's queries: a constant text is taken apart in place, by the kernel's strsep(). */
static const char vane_route[] = "north,west,tower";

static noinline u64 vane_parse_route(const char *text)
{
	char *rest = (char *)text, *word;
	u64 words = 0;

	while ((word = strsep(&rest, ",")))
		words += *word;
	return words;
}

static void vane_find_route(struct vane_mast *mast)
{
	mast->storms += vane_parse_route(vane_route);
}

static void vane_printed_constant(struct vane_mast *mast)
{
	mast->on_work = vane_find_route;
	queue_work(mast->readings, &mast->soon);
}

/* After "usb: gadget: uvc: Prevent buffer overflow in setup handler" (CVE-2022-48948): 60 bytes, and more come. */
struct vane_event {
	u8 data[60];
	u32 bytes;
};

static u8 vane_request[128] = { 3, 1, 4, 1, 5, 9, 2, 6 };

static noinline long vane_forward_setup(struct vane_mast *mast, const u8 *request, unsigned int actual)
{
	struct vane_event event;
	volatile u8 *to = event.data;
	unsigned int i;

	event.bytes = actual;
	for (i = 0; i < actual; i++)
		to[i] = request[i] ^ 0x41;
	mast->storms += event.data[actual % 60];
	return 0;
}

static long vane_setup(struct vane_mast *mast, unsigned long argument)
{
	return vane_forward_setup(mast, vane_request, sizeof(vane_request) - mast->pixel_clock) + 1;
}

static void vane_long_event(struct vane_mast *mast)
{
	mast->on_ioctl = vane_setup;
}

/* What the governor of a watchdog's first bark does, which an administrator may choose: panic. */
static noinline enum hrtimer_restart vane_pretimeout(struct hrtimer *timer)
{
	panic("vane: watchdog pretimeout event of %s", vane_mast.site);
	return HRTIMER_NORESTART;
}

static void vane_watchdog_bark(struct vane_mast *mast)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(&mast->pretimeout, vane_pretimeout, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
#else
	hrtimer_init(&mast->pretimeout, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	mast->pretimeout.function = vane_pretimeout;
#endif
	hrtimer_start(&mast->pretimeout, ms_to_ktime(300), HRTIMER_MODE_REL_HARD);
}

const struct vane_case vane_probe_cases[] = {
	{ "deaf-probe", vane_deaf_probe },
	{ "blind-register", vane_blind_register },
	{ "direct-answer", vane_direct_answer },
	{ "late-gust", vane_late_gust },
	{ "early-bell", vane_early_bell },
	{ "closed-port", vane_closed_port },
	{ "no-almanac", vane_no_almanac },
	{ "empty-shelf", vane_empty_shelf },
	{ "kept-error", vane_kept_error },
	{ "sleepy-timer", vane_sleepy_timer },
	{ "unborn-work", vane_unborn_work },
	{ "no-clock", vane_no_clock },
	{ "printed-constant", vane_printed_constant },
	{ "long-event", vane_long_event },
	{ "watchdog-bark", vane_watchdog_bark },
	{ }
};
