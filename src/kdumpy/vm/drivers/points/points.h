/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* points: a make-believe signal box; its faults are for scoring only, no rule is written after them. */
#ifndef POINTS_H
#define POINTS_H

#include <linux/completion.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/kernel.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

struct points_box {
	u64 trains;
	struct mutex interlock;		/* which points and signals exclude each other */
	struct rw_semaphore timetable;
	spinlock_t levers;
	wait_queue_head_t bell;
	bool rung;
	struct completion crossing_closed;
	u32 status;
	u8 blocks[48];
	struct workqueue_struct *signals;
	struct work_struct signal;
	struct tasklet_struct relay;
	struct irq_work chip;
	struct net_device *line;
	/* What the next event of each kind is to do; NULL: nothing. */
	void (*on_ioctl)(struct points_box *box);
	void (*on_read)(struct points_box *box);
	void (*on_signal)(struct points_box *box);
	void (*on_relay)(struct points_box *box);
	void (*on_chip)(struct points_box *box);
};

struct points_move {
	const char *name;
	void (*make)(struct points_box *box);
};

extern struct points_box points_box;
extern const struct points_move points_moves[];

int points_line_open(struct net_device *net);

#endif
