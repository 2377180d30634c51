/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* loom: a make-believe weaving mill; its faults are for scoring only, no rule is written after them. */
#ifndef LOOM_H
#define LOOM_H

#include <linux/completion.h>
#include <linux/errseq.h>
#include <linux/fs.h>
#include <linux/irq_work.h>
#include <linux/kernel.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

/* Who made a part; the part points to it. */
struct loom_spinner {
	u64 town;
	u64 loans;
};

struct loom_pick {
	u64 colour;
	u64 count;
};

/* A box of punched cards: the pattern. */
struct loom_jacquard {
	u64 holes;
	u64 length;
	u64 rows;
};

struct loom_bench {
	u64 lamps;
	u64 changed;
};

struct loom_weaver {
	u64 wage;
	struct loom_bench *bench;
};

struct loom_mill {
	u64 yards;
	struct loom_jacquard *jacquard;
	struct loom_weaver *weaver;
	struct mutex floor;
	struct mutex dye;
	spinlock_t spindle;
	rwlock_t rooms;
	errseq_t broken;
	u8 *card;
	u32 holes_read;
	struct list_head panels;
	struct kobject *office;
	struct net_device *belt;
	struct work_struct shift;
	struct delayed_work overtime;
	struct timer_list whistle;
	struct irq_work snap;
	/* What the next event of each kind is to do; NULL: nothing. */
	void (*at_close)(struct loom_mill *mill);
	void (*at_query)(struct loom_mill *mill);
	void (*at_read)(struct loom_mill *mill, struct file *file);
	void (*at_shift)(struct loom_mill *mill);
	void (*at_whistle)(struct loom_mill *mill);
	void (*at_snap)(struct loom_mill *mill);
	void (*at_exit)(struct loom_mill *mill);
	void (*at_belt)(struct loom_mill *mill, struct sk_buff *skb);
};

struct loom_weave {
	const char *name;
	void (*weave)(struct loom_mill *mill);
};

extern struct loom_mill loom_mill;
extern const struct loom_weave loom_yarn_orders[], loom_cloth_orders[], loom_jam_orders[];
extern const struct vm_operations_struct loom_yarn_mapping;
extern struct kobj_attribute loom_unbind, loom_authorize;

#endif
