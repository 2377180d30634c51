// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What never ends: waits for locks, work, events and hardware, and loops. */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>

#include "points.h"

/* After "btrfs: add missing mutex_unlock in btrfs_relocate_sys_chunks()": a way out keeps the mutex, and its process
 * ends. */
static noinline void points_set_route(struct points_box *box)
{
	mutex_lock(&box->interlock);
	box->trains++;
	mutex_unlock(&box->interlock);
}

static noinline int points_relocate(struct points_box *box)
{
	mutex_lock(&box->interlock);
	if (!box->status)
		return -EBUSY;
	mutex_unlock(&box->interlock);
	return 0;
}

static void points_left_locked(struct points_box *box)
{
	box->on_ioctl = points_set_route;
	box->trains += points_relocate(box);
}

/* After "rq-qos: fix missed wake-ups in rq_qos_throttle": what is waited for has come, and nobody says so. */
static noinline void points_await_bell(struct points_box *box)
{
	wait_event(box->bell, READ_ONCE(box->rung));
	box->trains++;
}

static void points_ring(struct points_box *box)
{
	msleep(500);
	WRITE_ONCE(box->rung, true);
}

static void points_missed_bell(struct points_box *box)
{
	box->on_signal = points_ring;
	queue_work(box->signals, &box->signal);
	points_await_bell(box);
}

/* After "nvme: fix possible hang caused during ctrl removal": a lock is kept while hardware does not answer. */
static noinline void points_close_crossing(struct points_box *box)
{
	down_write(&box->timetable);
	wait_for_completion(&box->crossing_closed);
	up_write(&box->timetable);
}

static int points_keeper(void *data)
{
	points_close_crossing(data);
	return 0;
}

static noinline void points_read_timetable(struct points_box *box)
{
	down_read(&box->timetable);
	box->trains++;
	up_read(&box->timetable);
}

static void points_slow_crossing(struct points_box *box)
{
	kthread_run(points_keeper, box, "points_keeper");
	box->on_read = points_read_timetable;
}

/* After "net/smc: fix deadlock triggered by cancel_delayed_work_syn()": work waits for its own end. */
static noinline void points_free_section(struct points_box *box)
{
	cancel_work_sync(&box->signal);
	box->trains--;
}

static void points_own_end(struct points_box *box)
{
	box->on_signal = points_free_section;
	queue_work(box->signals, &box->signal);
}

/* After "loop: don't destroy lo->workqueue in __loop_clr_fd": flushed work wants the lock of the one who flushes. */
static noinline void points_show_signal(struct points_box *box)
{
	msleep(200);
	mutex_lock(&box->interlock);
	box->trains++;
	mutex_unlock(&box->interlock);
}

static noinline void points_clear_signals(struct points_box *box)
{
	mutex_lock(&box->interlock);
	flush_workqueue(box->signals);
	mutex_unlock(&box->interlock);
}

static void points_busy_queue(struct points_box *box)
{
	box->on_signal = points_show_signal;
	queue_work(box->signals, &box->signal);
	points_clear_signals(box);
}

/* After "ipv4, ipv6: kill ip_mc_{join, leave}_group": the network's lock inside ours, and ours inside the network's. */
int points_line_open(struct net_device *net)
{
	struct points_box *box = &points_box;

	mutex_lock(&box->interlock);
	netif_start_queue(net);
	mutex_unlock(&box->interlock);
	return 0;
}

static noinline void points_join_line(struct points_box *box)
{
	mutex_lock(&box->interlock);
	msleep(2500);
	rtnl_lock();
	box->line->mtu = 1400;
	rtnl_unlock();
	mutex_unlock(&box->interlock);
}

static void points_crossed_lines(struct points_box *box)
{
	points_join_line(box);
	box->trains++;
}

/* After "mISDN: hfcpci: Fix potential deadlock on &hc->lock": an interrupt wants the spinlock of whom it interrupts. */
static noinline void points_lever_interrupt(struct points_box *box)
{
	spin_lock(&box->levers);
	box->trains++;
	spin_unlock(&box->levers);
}

static noinline void points_throw_lever(struct points_box *box)
{
	spin_lock(&box->levers);
	irq_work_queue(&box->chip);
	mdelay(50);
	box->trains++;
	spin_unlock(&box->levers);
}

static void points_same_lever(struct points_box *box)
{
	box->on_chip = points_lever_interrupt;
	points_throw_lever(box);
}

/* After "drm/ast: Fix soft lockup" (CVE-2024-35952): a bit of a register is waited for without an end. */
static noinline void points_enable_output(struct points_box *box)
{
	spin_lock(&box->levers);
	while (!(READ_ONCE(box->status) & 0x10))
		udelay(100);
	spin_unlock(&box->levers);
}

static void points_stuck_bit(struct points_box *box)
{
	box->on_ioctl = points_enable_output;
}

/* After CVE-2019-3900 (vhost_net): what has no length does not bring the loop forward. */
static noinline u64 points_parse_blocks(const u8 *blocks, unsigned int bytes)
{
	unsigned int at = 0;
	u64 occupied = 0;

	while (at < bytes) {
		occupied += READ_ONCE(blocks[at]);
		at += READ_ONCE(blocks[at + 1]);
	}
	return occupied;
}

static void points_occupied(struct points_box *box)
{
	box->trains = points_parse_blocks(box->blocks, sizeof(box->blocks));
}

static void points_empty_block(struct points_box *box)
{
	box->blocks[0] = 1;
	box->blocks[1] = 6;
	box->on_relay = points_occupied;
	tasklet_schedule(&box->relay);
}

/* After "ALSA: hda - Loop interrupt handling until really cleared": a chip that is gone answers with all ones. */
static noinline void points_chip_interrupt(struct points_box *box)
{
	while (READ_ONCE(box->status) == 0xffffffff)
		cpu_relax();
}

static void points_dead_chip(struct points_box *box)
{
	box->status = 0xffffffff;
	box->on_chip = points_chip_interrupt;
	irq_work_queue(&box->chip);
}

const struct points_move points_moves[] = {
	{ "left-locked", points_left_locked },
	{ "missed-bell", points_missed_bell },
	{ "slow-crossing", points_slow_crossing },
	{ "own-end", points_own_end },
	{ "busy-queue", points_busy_queue },
	{ "crossed-lines", points_crossed_lines },
	{ "same-lever", points_same_lever },
	{ "stuck-bit", points_stuck_bit },
	{ "empty-block", points_empty_block },
	{ "dead-chip", points_dead_chip },
	{ }
};
