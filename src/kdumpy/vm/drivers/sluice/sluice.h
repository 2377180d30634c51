/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* sluice: a make-believe network spooler; its faults are for scoring only, no rule is written after them. */
#ifndef SLUICE_H
#define SLUICE_H

#include <linux/completion.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/kref.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/rcupdate.h>
#include <linux/rwsem.h>
#include <linux/semaphore.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/version.h>
#include <linux/workqueue.h>

#define SLUICE_LANES	4
#define SLUICE_RING	512

/* One thing to be sent on. */
struct sluice_parcel {
	u64 serial;
	u32 bytes;
	u32 lane;
	struct list_head queued;
	struct rcu_head rcu;
	struct sluice_lane *route;
	u8 payload[72];
};

/* One way out. */
struct sluice_lane {
	u8 scratch[200];
	unsigned int index;
	unsigned int weight;
	atomic64_t sent;
	struct list_head parcels;
	struct kref users;
	struct sluice_lane *spare;
	u64 *ring;
};

struct sluice_gate {
	spinlock_t queue_lock;		/* the parcels of all lanes */
	struct mutex config;		/* weights; taken inside map */
	struct rw_semaphore map;	/* which lane goes where */
	struct semaphore credits;
	struct completion drained;
	struct sluice_lane *lanes[SLUICE_LANES];
	struct kmem_cache *parcels;
	struct net_device *net;
	struct tasklet_struct pump;
	struct hrtimer clock;
	struct work_struct settle;
	int irq;
	u64 serial;
	u64 dropped;
	/* What the next run of each context is to do; NULL: nothing. */
	void (*on_softirq)(struct sluice_gate *gate);
	void (*on_hardirq)(struct sluice_gate *gate);
	void (*on_irq_thread)(struct sluice_gate *gate);
	void (*on_work)(struct sluice_gate *gate);
	void (*on_xmit)(struct sluice_gate *gate, struct sk_buff *skb);
	void (*on_thread)(struct sluice_gate *gate);
};

struct sluice_verb {
	const char *name;
	void (*run)(struct sluice_gate *gate, const char __user *buffer);
};

extern struct sluice_gate sluice_gate;
extern const struct sluice_verb sluice_flow_verbs[];
extern const struct sluice_verb sluice_lock_verbs[];

struct sluice_parcel *sluice_new_parcel(struct sluice_gate *gate, unsigned int lane);
int sluice_net_add(struct sluice_gate *gate);
void sluice_run_softirq(struct sluice_gate *gate, void (*what)(struct sluice_gate *));
void sluice_run_hardirq(struct sluice_gate *gate, void (*what)(struct sluice_gate *));
void sluice_run_irq_thread(struct sluice_gate *gate, void (*what)(struct sluice_gate *));
void sluice_run_work(struct sluice_gate *gate, void (*what)(struct sluice_gate *));
void sluice_run_thread(struct sluice_gate *gate, void (*what)(struct sluice_gate *));

#endif
