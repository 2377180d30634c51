/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* vane: a make-believe weather station; its faults are for scoring only, no rule is written after them. */
#ifndef VANE_H
#define VANE_H

#include <linux/hrtimer.h>
#include <linux/irq_work.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

struct vane_sensor {
	u32 kind;
	u32 scale;
	u64 last;
};

/* A probe lies on the shelf until it is hung on the mast. */
struct vane_probe {
	struct list_head link;
	u64 serial;
	struct vane_sensor *sensor;
};

/* What is said to a probe. */
struct vane_message {
	u16 address;
	u16 bytes;
	u8 *data;
};

/* The other end of the radio link. */
struct vane_uplink {
	u64 heard;
	u32 failures;
	struct net_device *port;
	struct list_head peers;
};

struct vane_peer {
	struct list_head near;
	u8 callsign[8];
	u32 hops;
};

/* The station's book of past readings. */
struct vane_almanac {
	u64 pages;
	u64 missing;
	spinlock_t lock;
};

/* What somebody asked to be measured; listed in /proc/vane. */
struct vane_survey {
	struct list_head entry;
	u64 from, until;
	u8 note[32];
	struct vane_sensor *sensor;	/* in the middle of the object */
	u64 taken[7];
};

struct vane_caller {
	u64 number;
	struct vane_uplink *line;
};

struct vane_band {
	u64 tuned;
	struct vane_sensor *source;
};

/* One who has opened /dev/vane. */
struct vane_guest {
	struct vane_band *channel;
	refcount_t users;
};

struct vane_mast {
	u64 storms;
	struct list_head shelf;
	u64 opened;
	char site[16];
	struct vane_uplink *uplink;
	struct vane_almanac *almanac;
	struct vane_sensor *lightning;
	struct vane_guest *listener;
	struct vane_caller *caller;
	struct vane_band *channel;
	struct list_head surveys;
	u32 (*read_register)(struct vane_mast *mast, u32 offset);
	u32 pixel_clock;
	u8 *frame;
	struct mutex firmware;
	struct workqueue_struct *readings;
	struct work_struct hotplug;	/* only set up when the station has a screen */
	struct work_struct soon;
	struct delayed_work later;
	struct timer_list gust;
	struct hrtimer pretimeout;
	struct irq_work strike;
	struct net_device *radio;
	struct napi_struct napi;
	/* What the next event of each kind is to do; NULL: nothing. */
	int (*on_open)(struct vane_mast *mast);
	void (*on_close)(struct vane_mast *mast, struct vane_guest *reader);
	long (*on_ioctl)(struct vane_mast *mast, unsigned long argument);
	long (*on_read)(struct vane_mast *mast, struct vane_guest *reader);
	void (*on_show)(struct vane_mast *mast, struct seq_file *file);
	void (*on_work)(struct vane_mast *mast);
	void (*on_gust)(struct vane_mast *mast);
	void (*on_strike)(struct vane_mast *mast);
	void (*on_xmit)(struct vane_mast *mast, struct sk_buff *skb);
	void (*on_poll)(struct vane_mast *mast);
};

struct vane_case {
	const char *name;
	void (*arm)(struct vane_mast *mast);
};

extern struct vane_mast vane_mast;
extern const struct vane_case vane_probe_cases[], vane_object_cases[], vane_radio_cases[];
extern bool vane_follows;

int vane_radio_add(struct vane_mast *mast);
void vane_radio_remove(struct vane_mast *mast);

#endif
