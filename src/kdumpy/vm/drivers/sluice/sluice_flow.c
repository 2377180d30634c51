// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The faults of data: pointers, lists, counters, stacks, leaks, assertions. */
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/math64.h>
#include <linux/moduleparam.h>
#include <linux/random.h>
#include <linux/skbuff.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "sluice.h"

/* The lane was taken down while packets still come. */
static noinline void sluice_send_on(struct sluice_gate *gate, struct sk_buff *skb)
{
	struct sluice_lane *lane = gate->lanes[skb->len % SLUICE_LANES];

	lane->spare->weight = skb->len;
}

static void sluice_xmit_null(struct sluice_gate *gate, const char __user *buffer)
{
	gate->on_xmit = sluice_send_on;
}

/* An index of the ring is not masked. */
static noinline u64 sluice_ring_slot(struct sluice_lane *lane, unsigned long head)
{
	return READ_ONCE(lane->ring[head]);
}

static void sluice_read_ring(struct sluice_gate *gate)
{
	struct sluice_lane *lane = gate->lanes[1];
	unsigned long head = lane->weight - 10;

	while (head < 100000)
		lane->scratch[0] += sluice_ring_slot(lane, head += SLUICE_RING);
}

static void sluice_ring_overrun(struct sluice_gate *gate, const char __user *buffer)
{
	gate->lanes[1]->ring = vmalloc(SLUICE_RING * sizeof(u64));
	sluice_run_softirq(gate, sluice_read_ring);
}

/* A parcel is freed inside the walk over its list. */
static noinline void sluice_age_parcels(struct sluice_gate *gate)
{
	struct sluice_parcel *parcel;

	list_for_each_entry(parcel, &gate->lanes[2]->parcels, queued) {
		gate->dropped += parcel->bytes;
		kmem_cache_free(gate->parcels, parcel);
	}
}

static void sluice_walk_freed(struct sluice_gate *gate, const char __user *buffer)
{
	int i;

	for (i = 0; i < 3; i++) {
		struct sluice_parcel *parcel = sluice_new_parcel(gate, 2);

		if (parcel)
			list_add_tail(&parcel->queued, &gate->lanes[2]->parcels);
	}
	sluice_run_hardirq(gate, sluice_age_parcels);
}

/* The parcel's last user freed it, and RCU's callback does again. */
static void sluice_parcel_gone(struct rcu_head *rcu)
{
	struct sluice_parcel *parcel = container_of(rcu, struct sluice_parcel, rcu);

	kmem_cache_free(sluice_gate.parcels, parcel);
	if (parcel->bytes)
		kmem_cache_free(sluice_gate.parcels, parcel);
	sluice_gate.dropped++;
}

static void sluice_free_twice(struct sluice_gate *gate, const char __user *buffer)
{
	struct sluice_parcel *parcel = sluice_new_parcel(gate, 3);

	if (parcel)
		call_rcu(&parcel->rcu, sluice_parcel_gone);
}

/* A parcel that stands in the queue is queued. */
static noinline void sluice_enqueue(struct sluice_lane *lane, struct sluice_parcel *parcel)
{
	list_add_tail(&parcel->queued, &lane->parcels);
	atomic64_inc(&lane->sent);
}

static void sluice_requeue(struct sluice_gate *gate)
{
	struct sluice_parcel *parcel = sluice_new_parcel(gate, 0);

	spin_lock_bh(&gate->queue_lock);
	sluice_enqueue(gate->lanes[0], parcel);
	sluice_enqueue(gate->lanes[0], parcel);
	spin_unlock_bh(&gate->queue_lock);
}

static void sluice_queue_twice(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_work(gate, sluice_requeue);
}

static void sluice_lane_free(struct kref *users)
{
	pr_info("sluice: lane is free\n");
}

/* The lane's last user is gone; a new one comes. */
static noinline void sluice_lane_get(struct sluice_lane *lane)
{
	kref_get(&lane->users);
	atomic64_inc(&lane->sent);
}

static void sluice_revive_lane(struct sluice_gate *gate)
{
	kref_put(&gate->lanes[3]->users, sluice_lane_free);
	sluice_lane_get(gate->lanes[3]);
}

static void sluice_ref_revived(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_irq_thread(gate, sluice_revive_lane);
}

/* Flags in the upper bits of a pointer are not taken off. */
static noinline u32 sluice_route_weight(unsigned long tagged)
{
	struct sluice_lane *lane = (struct sluice_lane *)tagged;

	return READ_ONCE(lane->weight);
}

static void sluice_weigh(struct sluice_gate *gate)
{
	gate->dropped += sluice_route_weight((unsigned long)gate->lanes[1] ^ (0x5aUL << 48));
}

static void sluice_tagged_pointer(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_softirq(gate, sluice_weigh);
}

/* Two functions call each other for ever. */
static noinline u64 sluice_hash_tree(struct sluice_lane *lane, u64 key);

static noinline u64 sluice_hash_leaf(struct sluice_lane *lane, u64 key)
{
	volatile u8 block[300];

	block[key % 300] = key;
	return sluice_hash_tree(lane, key * 31 + 7) + block[(key + 1) % 300];
}

static noinline u64 sluice_hash_tree(struct sluice_lane *lane, u64 key)
{
	volatile u64 words[40];

	words[key % 40] = key;
	if (READ_ONCE(lane->index) > SLUICE_LANES)
		return 1;
	return sluice_hash_leaf(lane, key ^ 0x1234) + words[key % 40];
}

static void sluice_hash(struct sluice_gate *gate)
{
	gate->dropped = sluice_hash_tree(gate->lanes[2], 77);
}

static void sluice_deep(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_irq_thread(gate, sluice_hash);
}

/* A module parameter that is longer than the label behind it. */
static noinline int sluice_copy_label(const char *value, u8 *sum)
{
	char label[8];
	volatile char *end = label;
	int i;

	for (i = 0; value[i]; i++)
		*end++ = value[i];
	*sum = label[0] ^ label[7];
	return i > 3 ? -EINVAL : 0;
}

static int sluice_set_label(const char *value, const struct kernel_param *parameter)
{
	return sluice_copy_label(value, &sluice_gate.lanes[0] ? sluice_gate.lanes[0]->scratch : NULL);
}

static const struct kernel_param_ops sluice_label_ops = { .set = sluice_set_label };
module_param_cb(label, &sluice_label_ops, NULL, 0200);

/* A share is asked for of no weight at all. */
static noinline u32 sluice_share(struct sluice_lane *lane, u32 bytes)
{
	return bytes % lane->weight;
}

static void sluice_divide(struct sluice_gate *gate)
{
	gate->dropped += sluice_share(gate->lanes[0], (u32)gate->serial + 5000);
}

static void sluice_no_weight(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_work(gate, sluice_divide);
}

/* A state that cannot be. */
static noinline void sluice_next_state(struct sluice_gate *gate)
{
	switch (READ_ONCE(gate->lanes[3]->weight)) {
	case 0:
		gate->serial++;
		break;
	case 1:
		gate->dropped++;
		break;
	default:
		BUG();
	}
}

static void sluice_bad_state(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_hardirq(gate, sluice_next_state);
}

static noinline void sluice_check_order(struct sluice_gate *gate)
{
	WARN_ON_ONCE(gate->lanes[2]->weight > gate->lanes[1]->weight);
	gate->dropped++;
}

static void sluice_out_of_order(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_softirq(gate, sluice_check_order);
}

static noinline void sluice_hardware_dead(struct sluice_gate *gate)
{
	panic("%s: link lost for %d ms, giving up", gate->net->name, 4000);
}

static void sluice_link_lost(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_irq_thread(gate, sluice_hardware_dead);
}

/* The answer is put where the user said, without copy_to_user(). */
static noinline void sluice_answer(char *place, u64 serial)
{
	WRITE_ONCE(place[4], (char)serial);
}

static void sluice_user_write(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_answer((__force char *)buffer, gate->serial);
}

static unsigned int sluice_limit __ro_after_init = 40;

static noinline void sluice_raise_limit(unsigned int *limit)
{
	WRITE_ONCE(*limit, 80);
}

static void sluice_late_limit(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_raise_limit(&sluice_limit);
}

/* A tasklet without a function: nothing of this driver is on the stack then. */
static struct tasklet_struct sluice_second_pump;

static void sluice_half_tasklet(struct sluice_gate *gate, const char __user *buffer)
{
	tasklet_schedule(&sluice_second_pump);
}

/* Rings are made and never given back: memory goes, and no slab cache grows. */
static noinline void *sluice_grow_ring(struct sluice_lane *lane)
{
	u64 *ring = vzalloc(512 * 1024);

	if (ring)
		ring[0] = (u64)lane;
	return ring;
}

static void sluice_grow(struct sluice_gate *gate)
{
	while (sluice_grow_ring(gate->lanes[1]))
		cond_resched();
}

static void sluice_leak_rings(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_thread(gate, sluice_grow);
}

/* Notes are taken with kmalloc() and forgotten: the cache's name tells nothing. */
static noinline u64 *sluice_take_note(struct sluice_gate *gate)
{
	u64 *note = kmalloc(1000, GFP_KERNEL);

	if (note)
		memset(note, 0x11, 1000);
	return note;
}

static void sluice_take_notes(struct sluice_gate *gate)
{
	while (sluice_take_note(gate))
		cond_resched();
}

static void sluice_leak_notes(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_work(gate, sluice_take_notes);
}

const struct sluice_verb sluice_flow_verbs[] = {
	{ "xmit-null", sluice_xmit_null },
	{ "ring-overrun", sluice_ring_overrun },
	{ "walk-freed", sluice_walk_freed },
	{ "free-twice", sluice_free_twice },
	{ "queue-twice", sluice_queue_twice },
	{ "ref-revived", sluice_ref_revived },
	{ "tagged-pointer", sluice_tagged_pointer },
	{ "deep", sluice_deep },
	{ "no-weight", sluice_no_weight },
	{ "bad-state", sluice_bad_state },
	{ "out-of-order", sluice_out_of_order },
	{ "link-lost", sluice_link_lost },
	{ "user-write", sluice_user_write },
	{ "late-limit", sluice_late_limit },
	{ "half-tasklet", sluice_half_tasklet },
	{ "leak-rings", sluice_leak_rings },
	{ "leak-notes", sluice_leak_notes },
	{ }
};
