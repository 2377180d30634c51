// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What is used after it was given back. */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/kthread.h>
#include <linux/percpu.h>
#include <linux/refcount.h>
#include <linux/skbuff.h>
#include <linux/srcu.h>
#include <linux/sysfs.h>

#include "loom.h"

/* After "i2c: Fix a potential use after free" (CVE-2019-25162): put, and then used once more. */
struct loom_bobbin {
	struct kref users;
	u64 turns;
	struct loom_spinner *spinner;
	u64 worn[9];
};

static struct loom_bobbin *loom_lent;

static void loom_bobbin_gone(struct kref *users)
{
	kfree(container_of(users, struct loom_bobbin, users));
}

static noinline void loom_return_bobbin(struct loom_mill *mill)
{
	struct loom_bobbin *bobbin = loom_lent;

	kref_put(&bobbin->users, loom_bobbin_gone);
	bobbin->spinner->loans--;
	mill->yards++;
}

static void loom_spent_bobbin(struct loom_mill *mill)
{
	static struct loom_spinner spinner;

	loom_lent = kzalloc(sizeof(*loom_lent), GFP_KERNEL);
	if (!loom_lent)
		return;
	kref_init(&loom_lent->users);
	loom_lent->spinner = &spinner;
	mill->at_close = loom_return_bobbin;
}

/* After "net: fix use-after-free in tw_timer_handler" (CVE-2021-46936): a timer counts where its owner is gone. */
struct loom_tally {
	u64 idle, busy;
};

struct loom_hall {
	u64 number;
	u64 area;
	struct loom_tally __percpu *tally;
	u64 looms[20];
};

struct loom_pause {
	struct timer_list end;
	struct loom_hall *hall;
};

static noinline void loom_pause_over(struct timer_list *timer)
{
	struct loom_pause *pause = container_of(timer, struct loom_pause, end);

	this_cpu_inc(pause->hall->tally->idle);
	kfree(pause);
}

static noinline void loom_close_hall(struct loom_hall *hall)
{
	free_percpu(hall->tally);
	kfree(hall);
}

static void loom_long_pause(struct loom_mill *mill)
{
	struct loom_hall *hall = kzalloc(sizeof(*hall), GFP_KERNEL);
	struct loom_pause *pause = kzalloc(sizeof(*pause), GFP_KERNEL);

	if (!hall || !pause)
		return;
	hall->tally = alloc_percpu(struct loom_tally);
	pause->hall = hall;
	timer_setup(&pause->end, loom_pause_over, 0);
	mod_timer(&pause->end, jiffies + HZ / 2);
	loom_close_hall(hall);
}

/* After "HID: logitech-hidpp: Fix kernel crash on receiver USB disconnect" (CVE-2023-52478): registered twice, the
 * first one's properties go with the second. */
struct loom_dyestuff {
	const char *name;
	const u32 *properties;
	unsigned int many;
};

static struct loom_pick *loom_picks;
static struct loom_dyestuff loom_dyes[2];

static noinline u64 loom_dye_event(struct loom_dyestuff *dye)
{
	unsigned int i;
	u64 sum = 0;

	for (i = 0; i < dye->many; i++)
		sum += loom_picks[dye->properties[i]].count;
	return sum;
}

static noinline void loom_pour_away(struct loom_mill *mill)
{
	kfree(loom_dyes[1].properties);
	mill->yards += loom_dye_event(&loom_dyes[0]);
}

static void loom_two_dyes(struct loom_mill *mill)
{
	u32 *properties = kcalloc(24, sizeof(*properties), GFP_KERNEL);

	loom_picks = kcalloc(32, sizeof(*loom_picks), GFP_KERNEL);
	if (!properties || !loom_picks)
		return;
	loom_dyes[0].properties = loom_dyes[1].properties = properties;
	loom_dyes[0].many = loom_dyes[1].many = 24;
	mill->at_shift = loom_pour_away;
	schedule_work(&mill->shift);
}

/* After "KVM: Destroy I/O bus devices on unregister failure _after_ sync'ing SRCU" (CVE-2021-47061). */
struct loom_treadle {
	u64 pressed;
	u64 height;
	const struct loom_treadle_calls *calls;
	u64 wear[5];
};

struct loom_treadle_calls {
	void (*press)(struct loom_treadle *treadle);
	void (*lift)(struct loom_treadle *treadle);
};

DEFINE_STATIC_SRCU(loom_pedals);
static struct loom_treadle *loom_pedal;

static void loom_lift(struct loom_treadle *treadle)
{
	treadle->height++;
}

static const struct loom_treadle_calls loom_plain_treadle = { .lift = loom_lift };

static noinline void loom_pedal_lift(struct loom_mill *mill)
{
	int reader = srcu_read_lock(&loom_pedals);
	struct loom_treadle *treadle = srcu_dereference(loom_pedal, &loom_pedals);

	if (treadle) {
		msleep(600);
		treadle->calls->lift(treadle);
	}
	srcu_read_unlock(&loom_pedals, reader);
}

static int loom_foot(void *data)
{
	loom_pedal_lift(data);
	return 0;
}

static noinline void loom_remove_pedal(void)
{
	struct loom_treadle *treadle = loom_pedal;

	kfree(treadle);
	rcu_assign_pointer(loom_pedal, NULL);
	synchronize_srcu(&loom_pedals);
}

static void loom_early_removal(struct loom_mill *mill)
{
	loom_pedal = kzalloc(sizeof(*loom_pedal), GFP_KERNEL);
	if (!loom_pedal)
		return;
	loom_pedal->calls = &loom_plain_treadle;
	kthread_run(loom_foot, mill, "loom_foot");
	msleep(200);
	loom_remove_pedal();
}

/* After "ethernet:enic: Fix a use after free bug in enic_hard_start_xmit" (CVE-2021-46998). */
static noinline void loom_queue_cloth(struct loom_mill *mill, struct sk_buff *skb)
{
	if (skb->len > mill->holes_read) {
		mill->belt->stats.tx_dropped++;
		dev_kfree_skb_any(skb);
	}
}

static noinline void loom_start_belt(struct loom_mill *mill, struct sk_buff *skb)
{
	loom_queue_cloth(mill, skb);
	skb_tx_timestamp(skb);
	mill->yards++;
}

static void loom_torn_cloth(struct loom_mill *mill)
{
	mill->at_belt = loom_start_belt;
}

/* After "drm: bridge/panel: Cleanup connector on bridge detach" (CVE-2021-47063): freed, and still listed. */
struct loom_panel {
	struct list_head entry;
	u64 width, height;
	void (*fold)(struct loom_panel *panel);
	u64 stitches[16];
};

static void loom_fold_panel(struct loom_panel *panel)
{
	panel->height /= 2;
}

static noinline void loom_detach_panel(struct loom_panel *panel)
{
	panel->width = 0;
	kfree(panel);
}

static noinline void loom_fold_all(struct loom_mill *mill)
{
	struct loom_panel *panel, *next;

	list_for_each_entry_safe(panel, next, &mill->panels, entry) {
		panel->fold(panel);
		mill->yards++;
	}
}

static void loom_late_folding(struct loom_mill *mill)
{
	struct loom_panel *panel = kzalloc(sizeof(*panel), GFP_KERNEL);

	if (!panel)
		return;
	panel->fold = loom_fold_panel;
	list_add(&panel->entry, &mill->panels);
	loom_detach_panel(panel);
	mill->at_exit = loom_fold_all;
}

/* After "moxart: fix potential use-after-free on remove path" (CVE-2022-48626): the host is freed, then its base used. */
struct loom_host {
	u64 clock;
	void __iomem *base;
	u64 slots[7];
};

static noinline void loom_remove_host(struct loom_mill *mill)
{
	struct loom_host *host = kzalloc(sizeof(*host), GFP_KERNEL);

	if (!host)
		return;
	host->base = (__force void __iomem *)mill->card;
	kfree(host);
	writel(0, host->base + 0x10);
	mill->yards = 0;
}

static ssize_t loom_unbind_store(struct kobject *office, struct kobj_attribute *file, const char *text, size_t count)
{
	loom_remove_host(&loom_mill);
	return count;
}

struct kobj_attribute loom_unbind = __ATTR(unbind, 0200, NULL, loom_unbind_store);

/* After "crypto: qat - resolve race condition during AER recovery" (CVE-2024-26974): who waited has given up. */
struct loom_restart {
	struct work_struct work;
	struct completion ready;
	u64 reason;
};

static noinline void loom_restart_worker(struct work_struct *work)
{
	struct loom_restart *restart = container_of(work, struct loom_restart, work);

	msleep(700);
	complete(&restart->ready);
	loom_mill.yards++;
}

static noinline void loom_schedule_restart(struct loom_mill *mill)
{
	struct loom_restart *restart = kzalloc(sizeof(*restart), GFP_KERNEL);

	if (!restart)
		return;
	init_completion(&restart->ready);
	INIT_WORK(&restart->work, loom_restart_worker);
	schedule_work(&restart->work);
	if (!wait_for_completion_timeout(&restart->ready, HZ / 5))
		mill->yards = 0;
	kfree(restart);
}

/* After "mac802154: fix llsec key resources release in mac802154_llsec_key_del" (CVE-2024-26961): freed at once, and
 * found by who still looks. */
struct loom_key {
	refcount_t users;
	u32 ward;
	u64 bits[15];
};

static struct loom_key *loom_keys[4];

static noinline struct loom_key *loom_find_key(struct loom_mill *mill, unsigned int which)
{
	struct loom_key *key = loom_keys[which];

	refcount_inc(&key->users);
	mill->yards++;
	return key;
}

static noinline void loom_delete_key(struct loom_key *key)
{
	if (refcount_dec_and_test(&key->users))
		kfree(key);
}

static void loom_use_key(struct loom_mill *mill)
{
	mill->holes_read = loom_find_key(mill, 2)->ward;
}

static void loom_lost_key(struct loom_mill *mill)
{
	loom_keys[2] = kzalloc(sizeof(*loom_keys[2]), GFP_KERNEL);
	if (!loom_keys[2])
		return;
	refcount_set(&loom_keys[2]->users, 1);
	mill->at_whistle = loom_use_key;
	mod_timer(&mill->whistle, jiffies + HZ / 10);
	loom_delete_key(loom_keys[2]);
}

const struct loom_weave loom_yarn_orders[] = {
	{ "spent-bobbin", loom_spent_bobbin },
	{ "long-pause", loom_long_pause },
	{ "two-dyes", loom_two_dyes },
	{ "early-removal", loom_early_removal },
	{ "torn-cloth", loom_torn_cloth },
	{ "late-folding", loom_late_folding },
	{ "slow-restart", loom_schedule_restart },
	{ "lost-key", loom_lost_key },
	{ }
};
