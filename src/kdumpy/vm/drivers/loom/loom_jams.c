// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Where the mill jams: locks, waits and loops. */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/mman.h>
#include <linux/mm.h>
#include <linux/printk.h>
#include <linux/skbuff.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>

#include "loom.h"

/* After "nvmet-tcp: fix incorrect locking in state_change sk callback" (CVE-2021-47041): written where read is meant. */
static noinline void loom_state_change(struct loom_mill *mill)
{
	write_lock(&mill->rooms);
	mill->yards++;
	write_unlock(&mill->rooms);
}

static noinline void loom_visit_rooms(struct loom_mill *mill)
{
	read_lock(&mill->rooms);
	mill->whistle.expires = jiffies + 1;
	add_timer_on(&mill->whistle, smp_processor_id());
	mdelay(400);
	read_unlock(&mill->rooms);
}

static void loom_wrong_side(struct loom_mill *mill)
{
	mill->at_whistle = loom_state_change;
	loom_visit_rooms(mill);
	mill->yards++;
}

/* After "USB: core: Fix deadlock in usb_deauthorize_interface()" (CVE-2024-26934): a file wants the lock of the one
 * who removes the file. */
static noinline ssize_t loom_authorize_store(struct kobject *office, struct kobj_attribute *file, const char *text,
					     size_t count)
{
	mutex_lock(&loom_mill.floor);
	loom_mill.yards = 0;
	mutex_unlock(&loom_mill.floor);
	return count;
}

struct kobj_attribute loom_authorize = __ATTR(authorize, 0200, NULL, loom_authorize_store);

static noinline void loom_disconnect(struct loom_mill *mill)
{
	mutex_lock(&mill->floor);
	msleep(2500);
	sysfs_remove_file(mill->office, &loom_authorize.attr);
	mutex_unlock(&mill->floor);
}

static int loom_porter(void *data)
{
	loom_disconnect(data);
	return 0;
}

static void loom_closed_office(struct loom_mill *mill)
{
	kthread_run(loom_porter, mill, "loom_porter");
}

/* After "tun: limit printing rate when illegal packet received by tun dev" (CVE-2024-27013). */
static noinline void loom_take_bundles(struct loom_mill *mill)
{
	spin_lock(&mill->spindle);
	while (!READ_ONCE(mill->broken)) {
		pr_err("loom: bundle of unknown kind\n");
		print_hex_dump(KERN_ERR, "loom: ", DUMP_PREFIX_OFFSET, 16, 1, mill->card, 64, true);
	}
	spin_unlock(&mill->spindle);
}

static int loom_carter(void *data)
{
	loom_take_bundles(data);
	return 0;
}

static void loom_bad_bundles(struct loom_mill *mill)
{
	kthread_run(loom_carter, mill, "loom_carter");
}

/* After "net/sched: Fix mirred deadlock on device recursion" (CVE-2024-27010): a packet is sent on to where it is. */
static noinline void loom_roll_up(struct loom_mill *mill, struct sk_buff *skb);

static noinline void loom_mirror(struct loom_mill *mill, struct sk_buff *skb)
{
	skb->priority++;
	loom_roll_up(mill, skb);
	skb->priority--;
}

static noinline void loom_roll_up(struct loom_mill *mill, struct sk_buff *skb)
{
	spin_lock(&mill->spindle);
	if (skb->len)
		loom_mirror(mill, skb);
	mill->yards++;
	spin_unlock(&mill->spindle);
}

static void loom_mirrored_belt(struct loom_mill *mill)
{
	mill->at_belt = loom_roll_up;
}

/* After "scsi: target: core: Add TMF to tmr_list handling" (CVE-2024-26845): who was never begun does not end. */
struct loom_abort {
	u64 tag;
	struct completion ended;
};

static noinline void loom_drain_aborts(struct loom_mill *mill)
{
	struct loom_abort *abort = kzalloc(sizeof(*abort), GFP_KERNEL);

	if (!abort)
		return;
	init_completion(&abort->ended);
	wait_for_completion(&abort->ended);
	kfree(abort);
}

static void loom_never_begun(struct loom_mill *mill)
{
	mill->at_query = loom_drain_aborts;
}

/* After "net/mlx5e: Prevent deadlock while disabling aRFS" (CVE-2024-27014): cancelled work wants the lock. */
static noinline void loom_rule_handler(struct loom_mill *mill)
{
	msleep(300);
	mutex_lock(&mill->floor);
	mill->yards++;
	mutex_unlock(&mill->floor);
}

static noinline void loom_disable_rules(struct loom_mill *mill)
{
	mutex_lock(&mill->floor);
	msleep(100);
	cancel_work_sync(&mill->shift);
	mutex_unlock(&mill->floor);
}

static void loom_strict_rules(struct loom_mill *mill)
{
	mill->at_shift = loom_rule_handler;
	schedule_work(&mill->shift);
	loom_disable_rules(mill);
	mill->yards++;
}

/* After "hwrng: core - Fix page fault dead lock on mmap-ed hwrng" (CVE-2023-52615). */
static noinline vm_fault_t loom_yarn_fault(struct vm_fault *vmf)
{
	struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);

	if (!page)
		return VM_FAULT_OOM;
	mutex_lock(&loom_mill.dye);
	loom_mill.yards++;
	mutex_unlock(&loom_mill.dye);
	vmf->page = page;
	return 0;
}

const struct vm_operations_struct loom_yarn_mapping = { .fault = loom_yarn_fault };

static noinline long loom_copy_yarn(struct loom_mill *mill, char __user *buffer)
{
	long left;

	mutex_lock(&mill->dye);
	left = copy_to_user(buffer, mill->card, 64);
	mutex_unlock(&mill->dye);
	return left;
}

/* The one who reads has mapped the device, and reads into that. */
static void loom_read_mapped(struct loom_mill *mill, struct file *file)
{
	unsigned long at = vm_mmap(file, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);

	if (!IS_ERR_VALUE(at))
		mill->yards += loom_copy_yarn(mill, (char __user *)at);
}

static void loom_own_cloth(struct loom_mill *mill)
{
	mill->at_read = loom_read_mapped;
}

const struct loom_weave loom_jam_orders[] = {
	{ "wrong-side", loom_wrong_side },
	{ "closed-office", loom_closed_office },
	{ "bad-bundles", loom_bad_bundles },
	{ "mirrored-belt", loom_mirrored_belt },
	{ "never-begun", loom_never_begun },
	{ "strict-rules", loom_strict_rules },
	{ "own-cloth", loom_own_cloth },
	{ }
};
