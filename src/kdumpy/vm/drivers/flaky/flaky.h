/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* flaky: a make-believe sensor hub whose faults can be chosen. */
#ifndef FLAKY_H
#define FLAKY_H

#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/types.h>
#include <linux/version.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define timer_delete_sync del_timer_sync
#endif

struct flaky_device;

struct flaky_sample {
	struct list_head link;
	u64 taken_ns;
	u32 value;
	u32 channel;
	char note[40];
};

struct flaky_channel_ops {
	int (*reset)(struct flaky_device *dev);
	int (*calibrate)(struct flaky_device *dev);
};

struct flaky_channel {
	u32 id;
	u32 rate_hz;
	u64 last_value;
	u64 overruns;
	const struct flaky_channel_ops *ops;
};

struct flaky_client {
	refcount_t refs;
	pid_t owner;
	char name[16];
	struct flaky_channel *channel;
	void (*release)(struct flaky_client *client);
};

struct flaky_device {
	char name[16];
	struct mutex config_lock;	/* channel and its settings */
	struct mutex stats_lock;	/* totals; taken inside config_lock */
	spinlock_t samples_lock;	/* samples, sample_count */
	struct list_head samples;
	u32 sample_count;
	u64 total_samples;
	u64 timer_ticks;
	struct flaky_channel *channel;
	struct flaky_client *client;
	struct kmem_cache *sample_cache;
	struct workqueue_struct *workqueue;
	struct delayed_work poll_work;
	struct timer_list watchdog;
	struct task_struct *collector;
	struct task_struct *reporter;
	wait_queue_head_t collector_wait;
	/* What the next poll, tick or wakeup is to do wrong; NULL: nothing. */
	void (*poll_fault)(struct flaky_device *dev);
	void (*watchdog_fault)(struct flaky_device *dev);
	int (*collector_fault)(struct flaky_device *dev);
	int (*reporter_fault)(struct flaky_device *dev);
};

struct flaky_command {
	const char *word;
	int (*run)(struct flaky_device *dev, const char __user *buffer);
};

extern struct flaky_device flaky;
extern const struct flaky_command flaky_memory_commands[];
extern const struct flaky_command flaky_control_commands[];

struct flaky_sample *flaky_take_sample(struct flaky_device *dev);
void flaky_wake_poll(struct flaky_device *dev, void (*fault)(struct flaky_device *));
void flaky_wake_watchdog(struct flaky_device *dev, void (*fault)(struct flaky_device *));
void flaky_wake_collector(struct flaky_device *dev, int (*fault)(struct flaky_device *));
void flaky_wake_reporter(struct flaky_device *dev, int (*fault)(struct flaky_device *));

#endif
