// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The faults of memory: bad pointers, freed objects, broken lists, stacks. */
#include <linux/io.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "flaky.h"

/* A reconfiguration drops the channel while the poll is still using it. */
static void flaky_drop_channel(struct flaky_device *dev)
{
	WRITE_ONCE(dev->channel, NULL);
}

static int flaky_null_workqueue(struct flaky_device *dev, const char __user *buffer)
{
	flaky_wake_poll(dev, flaky_drop_channel);
	return 0;
}

/* The next reader of /proc/flaky falls; the poll is stopped so that it is not first. */
static int flaky_null_procread(struct flaky_device *dev, const char __user *buffer)
{
	cancel_delayed_work_sync(&dev->poll_work);
	kthread_stop(dev->collector);
	dev->collector = NULL;
	flaky_drop_channel(dev);
	return 0;
}

static noinline void flaky_watchdog_check(struct flaky_device *dev)
{
	struct flaky_client *client = dev->client;

	client->channel = NULL;
	client->channel->overruns++;
}

static int flaky_null_timer(struct flaky_device *dev, const char __user *buffer)
{
	flaky_wake_watchdog(dev, flaky_watchdog_check);
	return 0;
}

/* The table was unmapped; its address was kept. */
static noinline u32 flaky_read_calibration(u32 *table)
{
	return READ_ONCE(table[8]);
}

static int flaky_bad_address(struct flaky_device *dev, const char __user *buffer)
{
	u32 *table = vmalloc(PAGE_SIZE);

	if (!table)
		return -ENOMEM;
	vfree(table);
	vm_unmap_aliases();
	dev->channel->last_value = flaky_read_calibration(table);
	return 0;
}

/* A name too long runs over the pointer behind it: the address is text. */
static noinline void flaky_rename_client(struct flaky_client *client)
{
	static const char name[] = "meter-in-the-basement-left";
	volatile char *to = client->name;
	size_t i;

	for (i = 0; i < sizeof(name); i++)
		to[i] = name[i];
}

static noinline u64 flaky_client_rate(struct flaky_client *client)
{
	return client->channel->rate_hz;
}

static int flaky_general_protection(struct flaky_device *dev, const char __user *buffer)
{
	flaky_rename_client(dev->client);
	dev->channel->last_value = flaky_client_rate(dev->client);
	return 0;
}

/* copy_from_user() was forgotten; SMAP catches it. */
static noinline char flaky_peek_command(const char *word)
{
	return READ_ONCE(word[0]);
}

static int flaky_user_access(struct flaky_device *dev, const char __user *buffer)
{
	return flaky_peek_command((__force const char *)buffer) ? 0 : -EINVAL;
}

static const struct flaky_channel_ops flaky_half_ops;

static noinline int flaky_calibrate_channel(struct flaky_device *dev)
{
	int error = dev->channel->ops->calibrate(dev);

	return error ? error : (int)dev->channel->id;
}

static int flaky_jump_to_null(struct flaky_device *dev, const char __user *buffer)
{
	dev->channel->ops = &flaky_half_ops;
	return flaky_calibrate_channel(dev);
}

static noinline int flaky_call_filter(struct flaky_device *dev)
{
	int (*filter)(u64) = (int (*)(u64))(void *)dev->client;
	int kept = filter(dev->channel->last_value);

	return kept + 1;
}

static int flaky_nx_execute(struct flaky_device *dev, const char __user *buffer)
{
	return flaky_call_filter(dev);
}

static noinline void flaky_patch_ops(const struct flaky_channel_ops *ops)
{
	WRITE_ONCE(((struct flaky_channel_ops *)ops)->reset, NULL);
}

static int flaky_write_to_readonly(struct flaky_device *dev, const char __user *buffer)
{
	flaky_patch_ops(dev->channel->ops);
	return 0;
}

/* With slub_debug=P a freed client is full of 0x6b: so is its pointer. */
static noinline void flaky_notify_client(struct flaky_client *client)
{
	client->channel->overruns++;
}

static int flaky_use_after_free(struct flaky_device *dev, const char __user *buffer)
{
	kfree(dev->client);
	flaky_notify_client(dev->client);
	return 0;
}

static noinline void flaky_release_client(struct flaky_client *client)
{
	client->release(client);
	pr_info("flaky: client released\n");
}

static int flaky_use_after_free_call(struct flaky_device *dev, const char __user *buffer)
{
	kfree(dev->client);
	flaky_release_client(dev->client);
	return 0;
}

static noinline void flaky_free_client(struct flaky_client *client)
{
	kfree(client);
	barrier();
}

static int flaky_double_free(struct flaky_device *dev, const char __user *buffer)
{
	flaky_free_client(dev->client);
	flaky_free_client(dev->client);
	return 0;
}

/* Taken off the list twice. */
static noinline void flaky_expire_sample(struct flaky_sample *sample)
{
	list_del(&sample->link);
	barrier();
}

static int flaky_list_corruption(struct flaky_device *dev, const char __user *buffer)
{
	struct flaky_sample *sample = flaky_take_sample(dev);

	if (!sample)
		return -ENOMEM;
	spin_lock_bh(&dev->samples_lock);
	list_add(&sample->link, &dev->samples);
	flaky_expire_sample(sample);
	flaky_expire_sample(sample);
	spin_unlock_bh(&dev->samples_lock);
	return 0;
}

static noinline void flaky_put_client(struct flaky_client *client)
{
	if (refcount_dec_and_test(&client->refs))
		pr_info("flaky: last user gone\n");
}

static int flaky_refcount(struct flaky_device *dev, const char __user *buffer)
{
	flaky_put_client(dev->client);
	flaky_put_client(dev->client);
	return 0;
}

/* A tree that is a circle, walked by recursion; 512 bytes a level. */
static noinline u64 flaky_walk_tree(struct flaky_channel *channel, u64 depth)
{
	volatile u64 path[60];

	path[depth % 60] = depth;
	if (depth == U64_MAX)
		return 0;
	return flaky_walk_tree(channel, depth + 1) + path[depth % 60];
}

static int flaky_stack_overflow(struct flaky_device *dev, const char __user *buffer)
{
	dev->channel->last_value = flaky_walk_tree(dev->channel, 0);
	return 0;
}

/* The length comes from outside and is not checked. */
static noinline int flaky_parse_command(const char *text, size_t count)
{
	char word[16];
	volatile char *to = word;
	size_t i;

	for (i = 0; i < count; i++)
		to[i] = text[i];
	return word[3];
}

static int flaky_stack_corruption(struct flaky_device *dev, const char __user *buffer)
{
	static const char text[] = "calibrate-every-channel-now-and-then";

	return flaky_parse_command(text, sizeof(text)) & 0;
}

/* Samples are taken and forgotten until there is no memory left. */
static int flaky_hoard_samples(struct flaky_device *dev)
{
	while (!kthread_should_stop()) {
		unsigned int i;

		for (i = 0; i < 1024; i++)
			if (!flaky_take_sample(dev))
				return -ENOMEM;
		cond_resched();
	}
	return 0;
}

static int flaky_memory_leak(struct flaky_device *dev, const char __user *buffer)
{
	flaky_wake_collector(dev, flaky_hoard_samples);
	return 0;
}

const struct flaky_command flaky_memory_commands[] = {
	{ "null-workqueue", flaky_null_workqueue },
	{ "null-procread", flaky_null_procread },
	{ "null-timer", flaky_null_timer },
	{ "bad-address", flaky_bad_address },
	{ "general-protection", flaky_general_protection },
	{ "user-access", flaky_user_access },
	{ "jump-to-null", flaky_jump_to_null },
	{ "nx-execute", flaky_nx_execute },
	{ "write-to-readonly", flaky_write_to_readonly },
	{ "use-after-free", flaky_use_after_free },
	{ "use-after-free-call", flaky_use_after_free_call },
	{ "double-free", flaky_double_free },
	{ "list-corruption", flaky_list_corruption },
	{ "refcount", flaky_refcount },
	{ "stack-overflow", flaky_stack_overflow },
	{ "stack-corruption", flaky_stack_corruption },
	{ "memory-leak", flaky_memory_leak },
	{ }
};
