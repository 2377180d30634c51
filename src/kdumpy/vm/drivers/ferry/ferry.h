/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef FERRY_H
#define FERRY_H

#include <linux/bio.h>
#include <linux/completion.h>
#include <linux/kernel.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/timer.h>
#include <linux/version.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

/* A ship whose draught stands far behind its chart. */
struct ferry_ship {
	char chart[0x2400];
	u32 draught;
};

/* A voyage stands in a tree by its hour and rings its own bell. */
struct ferry_voyage {
	struct rb_node node;
	u64 hour;
	u32 aboard;
	char name[8];
	struct timer_list bell;
};

struct ferry_ticket {
	struct list_head sold;
	struct kref holders;
	u32 seat;
};

struct ferry_line {
	struct rb_root voyages;
	struct list_head tickets;
	struct ferry_ship *flagship;
	struct kmem_cache *voyage_cache;
	u64 __percpu *passengers;
	u64 speed, distance, sum;
	const char __user *note;
	int (*set_up)(struct ferry_line *line);
	int sunk;

	spinlock_t quay;
	struct mutex cars, trucks, bikes;
	struct srcu_struct routes;
	wait_queue_head_t pilot;

	struct workqueue_struct *tides;
	struct delayed_work tide;
	struct timer_list whistle;

	void (*on_tide)(struct ferry_line *line);
	void (*on_whistle)(struct ferry_line *line);
	void (*on_bio)(struct ferry_line *line, struct bio *bio);
	bool keep_bio;
};

struct ferry_order {
	const char *name;
	void (*run)(struct ferry_line *line, const char *text);
};

extern struct ferry_line ferry_line;
extern const struct ferry_order ferry_pointer_orders[], ferry_wait_orders[];

struct ferry_voyage *ferry_plan(struct ferry_line *line, u64 hour);
void ferry_run_tide(struct ferry_line *line, void (*what)(struct ferry_line *));
void ferry_run_whistle(struct ferry_line *line, void (*what)(struct ferry_line *));
void ferry_run_crew(struct ferry_line *line, int (*what)(void *));
ssize_t ferry_show_load(struct ferry_line *line, char *page);
int ferry_disk_add(struct ferry_line *line);

#endif
