// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * flaky: a make-believe sensor hub. It polls from a work queue, watches from a
 * timer, collects and reports from two threads, and shows itself in /proc/flaky.
 * A word written to /proc/flaky makes one chosen thing go wrong.
 */
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "flaky.h"

#define FLAKY_POLL_MS		200
#define FLAKY_WATCHDOG_MS	500
#define FLAKY_KEPT_SAMPLES	64

struct flaky_device flaky = { .name = "flaky0" };

static int flaky_reset(struct flaky_device *dev)
{
	dev->channel->overruns = 0;
	return 0;
}

static const struct flaky_channel_ops flaky_ops = { .reset = flaky_reset };

struct flaky_sample *flaky_take_sample(struct flaky_device *dev)
{
	struct flaky_sample *sample = kmem_cache_alloc(dev->sample_cache, GFP_KERNEL);

	if (!sample)
		return NULL;
	sample->taken_ns = ktime_get_ns();
	sample->value = (u32)(sample->taken_ns >> 10) & 0xfff;
	snprintf(sample->note, sizeof(sample->note), "sample %llu", dev->total_samples);
	return sample;
}

/* The channel is read without config_lock: the fault of `null-workqueue`. */
static noinline void flaky_poll_channel(struct flaky_device *dev, struct flaky_sample *sample)
{
	struct flaky_channel *channel = READ_ONCE(dev->channel);

	sample->channel = channel->id;
	channel->last_value = sample->value;
}

static noinline void flaky_poll_work(struct work_struct *work)
{
	struct flaky_device *dev = container_of(work, struct flaky_device, poll_work.work);
	struct flaky_sample *sample = flaky_take_sample(dev), *oldest = NULL;

	if (!sample)
		return;
	if (dev->poll_fault)
		dev->poll_fault(dev);
	flaky_poll_channel(dev, sample);
	spin_lock_bh(&dev->samples_lock);
	list_add_tail(&sample->link, &dev->samples);
	dev->total_samples++;
	if (++dev->sample_count > FLAKY_KEPT_SAMPLES) {
		oldest = list_first_entry(&dev->samples, struct flaky_sample, link);
		list_del(&oldest->link);
		dev->sample_count--;
	}
	spin_unlock_bh(&dev->samples_lock);
	if (oldest)
		kmem_cache_free(dev->sample_cache, oldest);
	wake_up(&dev->collector_wait);
	queue_delayed_work(dev->workqueue, &dev->poll_work, msecs_to_jiffies(FLAKY_POLL_MS));
}

static noinline void flaky_watchdog_tick(struct timer_list *timer)
{
	struct flaky_device *dev = container_of(timer, struct flaky_device, watchdog);

	dev->timer_ticks++;
	if (dev->watchdog_fault)
		dev->watchdog_fault(dev);
	mod_timer(&dev->watchdog, jiffies + msecs_to_jiffies(FLAKY_WATCHDOG_MS));
}

static noinline int flaky_collector(void *data)
{
	struct flaky_device *dev = data;

	while (!kthread_should_stop()) {
		wait_event_interruptible_timeout(dev->collector_wait,
			kthread_should_stop() || dev->collector_fault, HZ);
		if (dev->collector_fault)
			dev->collector_fault(dev);
		mutex_lock(&dev->stats_lock);
		dev->channel->overruns += dev->sample_count > FLAKY_KEPT_SAMPLES;
		mutex_unlock(&dev->stats_lock);
	}
	return 0;
}

static noinline int flaky_reporter(void *data)
{
	struct flaky_device *dev = data;

	while (!kthread_should_stop()) {
		schedule_timeout_interruptible(HZ / 2);
		if (dev->reporter_fault)
			dev->reporter_fault(dev);
	}
	return 0;
}

void flaky_wake_poll(struct flaky_device *dev, void (*fault)(struct flaky_device *))
{
	dev->poll_fault = fault;
	mod_delayed_work(dev->workqueue, &dev->poll_work, 0);
}

void flaky_wake_watchdog(struct flaky_device *dev, void (*fault)(struct flaky_device *))
{
	dev->watchdog_fault = fault;
	mod_timer(&dev->watchdog, jiffies + 1);
}

void flaky_wake_collector(struct flaky_device *dev, int (*fault)(struct flaky_device *))
{
	dev->collector_fault = fault;
	wake_up(&dev->collector_wait);
}

void flaky_wake_reporter(struct flaky_device *dev, int (*fault)(struct flaky_device *))
{
	dev->reporter_fault = fault;
	wake_up_process(dev->reporter);
}

/* The channel is shown without config_lock: the fault of `null-procread`. */
static noinline void flaky_show_channel(struct seq_file *out, struct flaky_device *dev)
{
	struct flaky_channel *channel = READ_ONCE(dev->channel);

	seq_printf(out, "channel %u rate %u Hz last %llu overruns %llu\n",
		   channel->id, channel->rate_hz, channel->last_value, channel->overruns);
}

static int flaky_show(struct seq_file *out, void *unused)
{
	struct flaky_device *dev = out->private;

	seq_printf(out, "%s samples %llu kept %u ticks %llu\n", dev->name,
		   dev->total_samples, dev->sample_count, dev->timer_ticks);
	flaky_show_channel(out, dev);
	return 0;
}

static int flaky_open(struct inode *inode, struct file *file)
{
	return single_open(file, flaky_show, &flaky);
}

static const struct flaky_command *flaky_find(const struct flaky_command *command,
					      const char *word)
{
	for (; command->word; command++)
		if (sysfs_streq(command->word, word))
			return command;
	return NULL;
}

static ssize_t flaky_write(struct file *file, const char __user *buffer, size_t count,
			   loff_t *position)
{
	const struct flaky_command *command;
	char word[32] = "";
	int error;

	if (count >= sizeof(word))
		return -E2BIG;
	if (copy_from_user(word, buffer, count))
		return -EFAULT;
	command = flaky_find(flaky_memory_commands, word);
	if (!command)
		command = flaky_find(flaky_control_commands, word);
	if (!command)
		return -EINVAL;
	pr_info("flaky: %s\n", command->word);
	error = command->run(&flaky, buffer);
	return error ? error : (ssize_t)count;
}

static const struct proc_ops flaky_proc_ops = {
	.proc_open = flaky_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
	.proc_write = flaky_write,
};

/* A cache with a constructor is never merged, so a leak is seen under its name. */
static void flaky_sample_init(void *object)
{
	memset(object, 0, sizeof(struct flaky_sample));
}

static int flaky_allocate(struct flaky_device *dev)
{
	dev->sample_cache = kmem_cache_create("flaky_sample", sizeof(struct flaky_sample), 0,
					      0, flaky_sample_init);
	dev->channel = kzalloc(sizeof(*dev->channel), GFP_KERNEL);
	dev->client = kzalloc(sizeof(*dev->client), GFP_KERNEL);
	dev->workqueue = alloc_workqueue("flaky", WQ_UNBOUND, 1);
	if (!dev->sample_cache || !dev->channel || !dev->client || !dev->workqueue)
		return -ENOMEM;
	dev->channel->id = 7;
	dev->channel->rate_hz = 1000 / FLAKY_POLL_MS;
	dev->channel->ops = &flaky_ops;
	dev->client->channel = dev->channel;
	dev->client->owner = current->pid;
	strscpy(dev->client->name, "meter", sizeof(dev->client->name));
	refcount_set(&dev->client->refs, 1);
	return 0;
}

static void flaky_release(struct flaky_device *dev)
{
	struct flaky_sample *sample, *next;

	if (dev->workqueue)
		destroy_workqueue(dev->workqueue);
	list_for_each_entry_safe(sample, next, &dev->samples, link)
		kmem_cache_free(dev->sample_cache, sample);
	kmem_cache_destroy(dev->sample_cache);
	kfree(dev->client);
	kfree(dev->channel);
}

static int __init flaky_init(void)
{
	struct flaky_device *dev = &flaky;
	int error;

	mutex_init(&dev->config_lock);
	mutex_init(&dev->stats_lock);
	spin_lock_init(&dev->samples_lock);
	INIT_LIST_HEAD(&dev->samples);
	init_waitqueue_head(&dev->collector_wait);
	INIT_DELAYED_WORK(&dev->poll_work, flaky_poll_work);
	timer_setup(&dev->watchdog, flaky_watchdog_tick, 0);
	error = flaky_allocate(dev);
	if (!error && !proc_create("flaky", 0600, NULL, &flaky_proc_ops))
		error = -ENOMEM;
	if (error) {
		flaky_release(dev);
		return error;
	}
	dev->collector = kthread_run(flaky_collector, dev, "flaky_collect");
	dev->reporter = kthread_run(flaky_reporter, dev, "flaky_report");
	queue_delayed_work(dev->workqueue, &dev->poll_work, 1);
	mod_timer(&dev->watchdog, jiffies + msecs_to_jiffies(FLAKY_WATCHDOG_MS));
	pr_info("flaky: ready\n");
	return 0;
}

static void __exit flaky_exit(void)
{
	struct flaky_device *dev = &flaky;

	remove_proc_entry("flaky", NULL);
	if (!IS_ERR_OR_NULL(dev->collector))
		kthread_stop(dev->collector);
	if (!IS_ERR_OR_NULL(dev->reporter))
		kthread_stop(dev->reporter);
	timer_delete_sync(&dev->watchdog);
	cancel_delayed_work_sync(&dev->poll_work);
	flaky_release(dev);
}

module_init(flaky_init);
module_exit(flaky_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Sensor hub with faults to choose from");
