/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* hive: a make-believe apiary; its faults are for scoring only, no rule is written after them. */
#ifndef HIVE_H
#define HIVE_H

#include <linux/completion.h>
#include <linux/irq_work.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

/* Where something is gathered; what is gathered points to it. */
struct hive_meadow {
	u64 acres;
	u64 bloom;
};

struct hive_apiary {
	u64 honey;
	u32 crest;
	spinlock_t lid;
	struct list_head pantry;
	struct list_head stragglers;
	bool leaving;
	struct completion home;
	struct net_device *lane;
	struct work_struct errand;
	struct delayed_work chore;
	struct timer_list dance;
	struct irq_work buzz;
	/* What the next event of each kind is to do; NULL: nothing. */
	void (*on_dusk)(struct hive_apiary *apiary);
	void (*on_smoke)(struct hive_apiary *apiary);
	void (*on_look)(struct hive_apiary *apiary);
	void (*on_errand)(struct hive_apiary *apiary);
	void (*on_chore)(struct hive_apiary *apiary);
	void (*on_dance)(struct hive_apiary *apiary);
	void (*on_buzz)(struct hive_apiary *apiary);
	void (*on_leave)(struct hive_apiary *apiary);
	void (*on_flight)(struct hive_apiary *apiary, struct sk_buff *skb);
};

struct hive_mishap {
	const char *name;
	void (*happen)(struct hive_apiary *apiary);
};

extern struct hive_apiary hive_apiary;
extern const struct hive_mishap hive_nectar_mishaps[], hive_comb_mishaps[], hive_swarm_mishaps[];

#endif
