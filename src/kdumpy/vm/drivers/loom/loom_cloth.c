// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Pointers to nothing, sizes that are wrong, and what the kernel's own checks find. */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/math64.h>
#include <linux/miscdevice.h>
#include <linux/refcount.h>
#include <linux/string.h>

#include "loom.h"

/* After "net: hso: fix null-ptr-deref during tty device unregistration" (CVE-2021-46904): one number given twice. */
struct loom_shuttle {
	u64 thread;
	u64 flights;
	u32 state;
};

static struct loom_shuttle *loom_shuttles[8];

static noinline int loom_free_number(void)
{
	int number;

	for (number = 0; number < ARRAY_SIZE(loom_shuttles); number++)
		if (!loom_shuttles[number])
			return number;
	return -ENOSPC;
}

static noinline void loom_retire_shuttle(unsigned int number)
{
	struct loom_shuttle *shuttle = READ_ONCE(loom_shuttles[number]);

	WRITE_ONCE(loom_shuttles[number], NULL);
	WRITE_ONCE(shuttle->state, 0);
	kfree(shuttle);
}

static void loom_two_shuttles(struct loom_mill *mill)
{
	int first = loom_free_number(), second = loom_free_number();

	loom_shuttles[first] = kzalloc(sizeof(struct loom_shuttle), GFP_KERNEL);
	loom_shuttles[second] = kzalloc(sizeof(struct loom_shuttle), GFP_KERNEL);
	loom_retire_shuttle(first);
	loom_retire_shuttle(second);
}

static void loom_same_number(struct loom_mill *mill)
{
	mill->at_query = loom_two_shuttles;
}

/* After "netfilter: nft_limit: avoid possible divide error in nft_limit_init" (CVE-2021-46915): div_u64() by 2^32. */
static noinline u64 loom_picks_each(u64 threads, u64 width)
{
	return div_u64(threads, width);
}

static u64 loom_ordered_width = 1ull << 32;

static void loom_wide_order(struct loom_mill *mill)
{
	mill->yards = loom_picks_each(mill->yards + 1000, READ_ONCE(loom_ordered_width));
}

/* After "media: ttpci: fix two memleaks in budget_av_attach" (CVE-2024-27073): a failed start forgets what it took. */
struct loom_warp {
	u32 ends;
	u32 error;
	u8 pattern[2000];
};

static noinline int loom_attach_warp(struct loom_mill *mill)
{
	struct loom_warp *warp = kzalloc(sizeof(*warp), GFP_KERNEL);

	if (!warp)
		return -ENOMEM;
	warp->ends = mill->yards;
	if (mill->holes_read != warp->ends + 1)
		return -ENODEV;
	kfree(warp);
	return 0;
}

static void loom_lost_warp(struct loom_mill *mill)
{
	int i;

	for (i = 0; i < 250; i++)
		loom_attach_warp(mill);
}

/* After "cifs: Return correct error code from smb2_get_enc_key" (CVE-2021-46960): a positive number as an error. */
static noinline void loom_note_break(struct loom_mill *mill)
{
	int error = mill->card ? 1 : -EIO;

	errseq_set(&mill->broken, error);
	mill->yards++;
}

static void loom_odd_error(struct loom_mill *mill)
{
	mill->at_shift = loom_note_break;
	schedule_work(&mill->shift);
}

/* After "userfaultfd: release page in error path to avoid BUG_ON" (CVE-2021-46988): two who do not agree on who
 * gives back. */
static noinline int loom_thread_heddle(struct loom_mill *mill, void **heddle)
{
	if (READ_ONCE(mill->yards) != ~0ull)
		return -ENOSPC;
	kfree(*heddle);
	*heddle = NULL;
	return 0;
}

static noinline void loom_fill_heddles(struct loom_mill *mill)
{
	void *heddle = kzalloc(64, GFP_KERNEL);
	int error = loom_thread_heddle(mill, &heddle);

	if (error != -ENOENT)
		BUG_ON(heddle);
	kfree(heddle);
}

static void loom_spare_heddle(struct loom_mill *mill)
{
	mill->at_query = loom_fill_heddles;
}

/* After "crypto: scomp - fix req->dst buffer overflow" (CVE-2023-52612): more comes out than there is room for. */
struct loom_strip {
	struct loom_spinner *spinner;
	u64 turns;
	u8 cloth[120];
};

static struct loom_strip *loom_strips[24];
static struct loom_spinner loom_miller;

static void loom_strip_begin(void *strip)
{
	((struct loom_strip *)strip)->turns = 0;
}

static noinline void loom_copy_lint(u8 *to, const u8 *from, unsigned int bytes)
{
	memcpy(to, from, bytes);
}

static noinline void loom_measure_strips(struct loom_mill *mill)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(loom_strips); i++)
		loom_strips[i]->spinner->loans++;
	mill->yards++;
}

static void loom_long_strip(struct loom_mill *mill)
{
	static const char text[] = "two up, one down, two up, one down, cross; ";
	struct kmem_cache *cache = kmem_cache_create("loom_strip", sizeof(struct loom_strip), 0, 0, loom_strip_begin);
	u8 *scratch = kzalloc(512, GFP_KERNEL);
	int i, j;

	if (!cache || !scratch)
		return;
	for (i = 0; i < 512; i++)
		scratch[i] = text[i % (sizeof(text) - 1)];
	for (i = 0; i < ARRAY_SIZE(loom_strips); i++) {
		loom_strips[i] = kmem_cache_alloc(cache, GFP_KERNEL);
		if (!loom_strips[i])
			return;
		loom_strips[i]->spinner = &loom_miller;
	}
	mill->at_whistle = loom_measure_strips;
	mod_timer(&mill->whistle, jiffies + HZ / 4);
	for (i = 0; i < ARRAY_SIZE(loom_strips); i++)		/* one that has a neighbour behind it */
		for (j = 0; j < ARRAY_SIZE(loom_strips); j++)
			if (loom_strips[j] == loom_strips[i] + 1) {
				loom_copy_lint(loom_strips[i]->cloth, scratch, 160);
				return;
			}
}

/* After "crypto: qat - ADF_STATUS_PF_RUNNING should be set after adf_dev_init" (CVE-2021-47056): a mutex that was
 * never set up, in memory that held something else. */
struct loom_wire {
	u64 number;
	struct mutex talk;
	u64 said;
};

static noinline void loom_say_goodbye(struct loom_wire *line)
{
	mutex_lock(&line->talk);
	line->said++;
	mutex_unlock(&line->talk);
}

static void loom_unmade_line(struct loom_mill *mill)
{
	struct loom_wire *line = kmalloc(sizeof(*line), GFP_KERNEL);

	if (!line)
		return;
	memset(line, 'w', sizeof(*line));
	loom_say_goodbye(line);
	kfree(line);
}

/* After "ext4: avoid online resizing failures due to oversized flex bg" (CVE-2023-52622): more than kmalloc() gives. */
static noinline void loom_widen_cloth(struct loom_mill *mill)
{
	struct loom_pick *picks = kmalloc_array(READ_ONCE(mill->holes_read), sizeof(*picks), GFP_KERNEL);

	mill->yards += !picks;
	kfree(picks);
}

static void loom_widest_cloth(struct loom_mill *mill)
{
	mill->holes_read = 1 << 21;
	mill->at_query = loom_widen_cloth;
}

/* After "platform/x86: dell-smbios-wmi: Fix oops on rmmod dell_smbios" (CVE-2021-47073): what was never registered. */
static struct miscdevice loom_gong = { .minor = MISC_DYNAMIC_MINOR, .name = "loom-gong" };

static noinline void loom_remove_gong(struct loom_mill *mill)
{
	misc_deregister(&loom_gong);
	mill->yards++;
}

static void loom_no_gong(struct loom_mill *mill)
{
	mill->at_exit = loom_remove_gong;
}

/* After "quota: Fix potential NULL pointer dereference" (CVE-2024-26878): looked at, and then read again. */
struct loom_account {
	u64 owed[3];
	spinlock_t lock;
	u64 paid;
};

static struct loom_account *loom_accounts[2];

static noinline void loom_pay_account(struct loom_mill *mill, unsigned int whose)
{
	if (!READ_ONCE(loom_accounts[whose]))
		return;
	msleep(500);
	spin_lock(&READ_ONCE(loom_accounts[whose])->lock);
	mill->yards++;
	spin_unlock(&loom_accounts[whose]->lock);
}

static int loom_drop_account(void *data)
{
	struct loom_account *account = xchg(&loom_accounts[1], NULL);

	kfree(account);
	return 0;
}

static void loom_late_account(struct loom_mill *mill)
{
	loom_accounts[1] = kzalloc(sizeof(struct loom_account), GFP_KERNEL);
	if (!loom_accounts[1])
		return;
	spin_lock_init(&loom_accounts[1]->lock);
	kthread_run(loom_drop_account, mill, "loom_clerk");
	loom_pay_account(mill, 1);
}

/* After "tun: avoid double free in tun_free_netdev" (CVE-2021-47082): the destructor frees, and the way out. */
struct loom_room {
	u64 *statistics;
	void (*destroy)(struct loom_room *room);
};

static struct kmem_cache *loom_statistics;

static noinline void loom_destroy_room(struct loom_room *room)
{
	kmem_cache_free(loom_statistics, room->statistics);
}

static noinline int loom_register_room(struct loom_mill *mill, struct loom_room *room)
{
	if (READ_ONCE(mill->yards) == ~0ull)
		return 0;
	room->destroy(room);
	return -EEXIST;
}

static noinline void loom_new_room(struct loom_mill *mill)
{
	struct loom_room room = { .destroy = loom_destroy_room };

	room.statistics = kmem_cache_zalloc(loom_statistics, GFP_KERNEL);
	if (room.statistics && loom_register_room(mill, &room))
		kmem_cache_free(loom_statistics, room.statistics);
	mill->yards++;
}

static void loom_room_begin(void *statistics)
{
	*(u64 *)statistics = 0;
}

static void loom_double_room(struct loom_mill *mill)
{
	loom_statistics = kmem_cache_create("loom_statistics", 184, 0, 0, loom_room_begin);
	if (loom_statistics)
		loom_new_room(mill);
}

/* After "i40e: Fix NULL ptr dereference on VSI filter sync" (CVE-2021-47184): the service task comes after removal. */
static noinline void loom_sync_lamps(struct loom_mill *mill)
{
	struct loom_bench *bench = READ_ONCE(mill->weaver->bench);

	bench->changed++;
	mill->yards += bench->lamps;
}

static void loom_no_bench(struct loom_mill *mill)
{
	mill->weaver->bench = kzalloc(sizeof(*mill->weaver->bench), GFP_KERNEL);
	mill->at_shift = loom_sync_lamps;
	schedule_delayed_work(&mill->overtime, HZ / 5);
	kfree(mill->weaver->bench);
	WRITE_ONCE(mill->weaver->bench, NULL);
}

/* After "arp: Prevent overflow in arp_req_get()" (CVE-2024-26733): 16 bytes into a member of 14. */
struct loom_label {
	u16 family;
	char name[14];
	u32 flags;
	char mask[16];
};

static noinline void loom_fill_label(struct loom_label *label, const void *name, unsigned int bytes)
{
	memcpy(label->name, name, bytes);
	label->flags = 0;
}

static void loom_print_label(struct loom_mill *mill)
{
	struct loom_label label = { .family = 1 };

	loom_fill_label(&label, mill->card, READ_ONCE(mill->holes_read));
	mill->yards += label.name[0] + label.flags;
}

static void loom_wordy_label(struct loom_mill *mill)
{
	mill->holes_read = 16;
	mill->at_query = loom_print_label;
}

/* After "i2c: i801: Don't generate an interrupt on bus reset" (CVE-2021-47153): the handler takes a reset for data. */
static noinline void loom_card_byte(struct loom_mill *mill)
{
	mill->card[mill->holes_read++] = 0xff;
	mill->yards++;
}

static void loom_card_reset(struct loom_mill *mill)
{
	mill->holes_read = -1;
	mill->at_snap = loom_card_byte;
	irq_work_queue(&mill->snap);
}

const struct loom_weave loom_cloth_orders[] = {
	{ "same-number", loom_same_number },
	{ "wide-order", loom_wide_order },
	{ "lost-warp", loom_lost_warp },
	{ "odd-error", loom_odd_error },
	{ "spare-heddle", loom_spare_heddle },
	{ "long-strip", loom_long_strip },
	{ "unmade-line", loom_unmade_line },
	{ "widest-cloth", loom_widest_cloth },
	{ "no-gong", loom_no_gong },
	{ "late-account", loom_late_account },
	{ "double-room", loom_double_room },
	{ "no-bench", loom_no_bench },
	{ "wordy-label", loom_wordy_label },
	{ "card-reset", loom_card_reset },
	{ }
};
