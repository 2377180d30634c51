// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The faults of control: assertions, panics, locks, endless loops. */
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/kernel.h>

#include "flaky.h"

static noinline void flaky_commit_batch(struct flaky_device *dev)
{
	BUG_ON(dev->total_samples != ~0ULL);
}

static int flaky_bug(struct flaky_device *dev, const char __user *buffer)
{
	flaky_commit_batch(dev);
	return 0;
}

static noinline void flaky_check_rate(struct flaky_device *dev)
{
	WARN(dev->channel->rate_hz < 1000, "flaky: rate %u Hz is too low\n",
	     dev->channel->rate_hz);
}

static int flaky_warn(struct flaky_device *dev, const char __user *buffer)
{
	flaky_check_rate(dev);
	return 0;
}

static noinline u64 flaky_average(u64 total, u32 count)
{
	return total / READ_ONCE(count);
}

static int flaky_divide_error(struct flaky_device *dev, const char __user *buffer)
{
	dev->channel->last_value = flaky_average(dev->total_samples, 0);
	return 0;
}

/* An instruction that no processor has: a locked NOP. */
static noinline void flaky_fast_sum(struct flaky_device *dev)
{
	asm volatile(".byte 0xf0, 0x90");
	dev->total_samples++;
}

static int flaky_invalid_opcode(struct flaky_device *dev, const char __user *buffer)
{
	flaky_fast_sum(dev);
	return 0;
}

static noinline void flaky_watchdog_give_up(struct flaky_device *dev)
{
	panic("flaky: %s does not answer after %llu ticks", dev->name, dev->timer_ticks);
}

static int flaky_driver_panic(struct flaky_device *dev, const char __user *buffer)
{
	flaky_wake_watchdog(dev, flaky_watchdog_give_up);
	return 0;
}

/* config_lock is held by a thread that waits for an answer that never comes. */
static noinline int flaky_await_answer(struct flaky_device *dev)
{
	mutex_lock(&dev->config_lock);
	while (!kthread_should_stop())
		schedule_timeout_idle(HZ);
	mutex_unlock(&dev->config_lock);
	return 0;
}

static noinline int flaky_apply_config(struct flaky_device *dev)
{
	mutex_lock(&dev->config_lock);
	dev->channel->rate_hz++;
	mutex_unlock(&dev->config_lock);
	return 0;
}

static int flaky_hung_task(struct flaky_device *dev, const char __user *buffer)
{
	flaky_wake_collector(dev, flaky_await_answer);
	while (!mutex_is_locked(&dev->config_lock))
		msleep(20);
	flaky_wake_reporter(dev, flaky_apply_config);
	return 0;
}

/* The collector takes config_lock then stats_lock, the reporter the other way. */
static noinline int flaky_update_totals(struct flaky_device *dev)
{
	mutex_lock(&dev->config_lock);
	msleep(1500);
	mutex_lock(&dev->stats_lock);
	dev->channel->last_value = dev->total_samples;
	mutex_unlock(&dev->stats_lock);
	mutex_unlock(&dev->config_lock);
	return 0;
}

static noinline int flaky_publish_stats(struct flaky_device *dev)
{
	mutex_lock(&dev->stats_lock);
	msleep(1500);
	mutex_lock(&dev->config_lock);
	dev->channel->overruns++;
	mutex_unlock(&dev->config_lock);
	mutex_unlock(&dev->stats_lock);
	return 0;
}

static int flaky_deadlock(struct flaky_device *dev, const char __user *buffer)
{
	flaky_wake_collector(dev, flaky_update_totals);
	flaky_wake_reporter(dev, flaky_publish_stats);
	return 0;
}

/* Waits for a register that never changes, and lets nobody else run. */
static noinline int flaky_spin_ready(struct flaky_device *dev)
{
	preempt_disable();
	while (READ_ONCE(dev->channel->id) == 7)
		cpu_relax();
	preempt_enable();
	return 0;
}

static int flaky_spin(struct flaky_device *dev, const char __user *buffer)
{
	flaky_wake_reporter(dev, flaky_spin_ready);
	return 0;
}

/* The same with interrupts off: the other processors wait for this one. */
static noinline int flaky_spin_irqs_off(struct flaky_device *dev)
{
	unsigned long flags;

	local_irq_save(flags);
	while (READ_ONCE(dev->channel->id) == 7)
		cpu_relax();
	local_irq_restore(flags);
	return 0;
}

static int flaky_spin_hard(struct flaky_device *dev, const char __user *buffer)
{
	flaky_wake_reporter(dev, flaky_spin_irqs_off);
	return 0;
}

const struct flaky_command flaky_control_commands[] = {
	{ "bug", flaky_bug },
	{ "warn", flaky_warn },
	{ "divide-error", flaky_divide_error },
	{ "invalid-opcode", flaky_invalid_opcode },
	{ "driver-panic", flaky_driver_panic },
	{ "hung-task", flaky_hung_task },
	{ "deadlock", flaky_deadlock },
	{ "spin", flaky_spin },
	{ "spin-irqs-off", flaky_spin_hard },
	{ }
};
