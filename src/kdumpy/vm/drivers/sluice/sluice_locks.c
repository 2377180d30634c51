// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The faults of waiting: locks, completions, work, and loops that do not end. */
#include <linux/delay.h>
#include <linux/sched.h>

#include "sluice.h"

/* Credits are taken and never given back. */
static noinline void sluice_reserve(struct sluice_gate *gate)
{
	down(&gate->credits);
	gate->serial++;
}

static void sluice_lost_credit(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_reserve(gate);
	sluice_reserve(gate);
	sluice_reserve(gate);
}

/* Nobody says that the lanes are drained. */
static noinline void sluice_drain(struct sluice_gate *gate)
{
	wait_for_completion(&gate->drained);
	gate->serial++;
}

static void sluice_never_drained(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_drain(gate);
}

/* A reader of the map goes to sleep with it, and a writer comes. */
static noinline void sluice_show_map(struct sluice_gate *gate)
{
	down_read(&gate->map);
	while (READ_ONCE(gate->lanes[1]->weight) == 10)
		schedule_timeout_idle(HZ);
	up_read(&gate->map);
}

static noinline void sluice_change_map(struct sluice_gate *gate)
{
	down_write(&gate->map);
	gate->lanes[1]->index ^= 2;
	up_write(&gate->map);
}

static void sluice_sleeping_reader(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_thread(gate, sluice_show_map);
	msleep(500);
	sluice_change_map(gate);
}

/* The map then the weights here, the weights then the map there. */
static noinline void sluice_balance(struct sluice_gate *gate)
{
	mutex_lock(&gate->config);
	msleep(1200);
	down_write(&gate->map);
	gate->lanes[2]->weight++;
	up_write(&gate->map);
	mutex_unlock(&gate->config);
}

static noinline void sluice_remap(struct sluice_gate *gate)
{
	down_write(&gate->map);
	msleep(1200);
	mutex_lock(&gate->config);
	gate->lanes[3]->weight++;
	mutex_unlock(&gate->config);
	up_write(&gate->map);
}

static void sluice_crossed(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_work(gate, sluice_balance);
	sluice_remap(gate);
}

/* A helper takes the mutex that its caller has. */
static noinline void sluice_set_weight(struct sluice_gate *gate, unsigned int weight)
{
	mutex_lock(&gate->config);
	gate->lanes[0]->weight = weight;
	mutex_unlock(&gate->config);
}

static noinline void sluice_reset_weights(struct sluice_gate *gate)
{
	mutex_lock(&gate->config);
	sluice_set_weight(gate, 5);
	mutex_unlock(&gate->config);
}

static void sluice_mutex_again(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_thread(gate, sluice_reset_weights);
}

/* The work that is waited for wants what the waiting one has. */
static noinline void sluice_note_weights(struct sluice_gate *gate)
{
	msleep(300);
	mutex_lock(&gate->config);
	gate->serial++;
	mutex_unlock(&gate->config);
}

static noinline void sluice_stop_notes(struct sluice_gate *gate)
{
	mutex_lock(&gate->config);
	flush_work(&gate->settle);
	mutex_unlock(&gate->config);
}

static void sluice_flush_holding(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_work(gate, sluice_note_weights);
	msleep(50);
	sluice_stop_notes(gate);
}

/* A list whose last entry leads to its middle is walked in a softirq. */
static noinline void sluice_count_parcels(struct sluice_gate *gate)
{
	struct list_head *at = &gate->lanes[1]->parcels;
	u64 count = 0;

	do {
		at = READ_ONCE(at->next);
		count++;
	} while (at != &gate->lanes[1]->parcels);
	gate->dropped += count;
}

static void sluice_endless_list(struct sluice_gate *gate, const char __user *buffer)
{
	struct sluice_parcel *one = sluice_new_parcel(gate, 1), *two = sluice_new_parcel(gate, 1);

	if (!one || !two)
		return;
	list_add_tail(&one->queued, &gate->lanes[1]->parcels);
	list_add_tail(&two->queued, &gate->lanes[1]->parcels);
	two->queued.next = &one->queued;
	sluice_run_softirq(gate, sluice_count_parcels);
}

/* The clock waits, in hard interrupt context, for a bit that never comes. */
static noinline void sluice_await_bit(struct sluice_gate *gate)
{
	while (!(READ_ONCE(gate->lanes[0]->weight) & 0x80000000))
		udelay(10);
}

static void sluice_stuck_clock(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_hardirq(gate, sluice_await_bit);
}

/* The queue's lock is taken by one who has it. */
static noinline void sluice_purge(struct sluice_gate *gate)
{
	spin_lock(&gate->queue_lock);
	gate->dropped++;
	spin_unlock(&gate->queue_lock);
}

static noinline void sluice_overflow(struct sluice_gate *gate)
{
	spin_lock(&gate->queue_lock);
	sluice_purge(gate);
	spin_unlock(&gate->queue_lock);
}

static void sluice_spin_again(struct sluice_gate *gate, const char __user *buffer)
{
	sluice_run_work(gate, sluice_overflow);
}

const struct sluice_verb sluice_lock_verbs[] = {
	{ "lost-credit", sluice_lost_credit },
	{ "never-drained", sluice_never_drained },
	{ "sleeping-reader", sluice_sleeping_reader },
	{ "crossed", sluice_crossed },
	{ "mutex-again", sluice_mutex_again },
	{ "flush-holding", sluice_flush_holding },
	{ "endless-list", sluice_endless_list },
	{ "stuck-clock", sluice_stuck_clock },
	{ "spin-again", sluice_spin_again },
	{ }
};
