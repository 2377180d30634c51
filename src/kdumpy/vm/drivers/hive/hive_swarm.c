// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What takes too long, and what takes too much. */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/refcount.h>

#include "hive.h"

/* After "nvme-fc: do not wait in vain when unloading module" (CVE-2024-26846): the last one to go looks whether anybody
 * waits, and goes after that. */
struct hive_straggler {
	struct list_head entry;
	u64 distance;
};

static struct hive_straggler hive_straggler;

static noinline void hive_straggler_goes(struct hive_apiary *apiary)
{
	bool waited_for = READ_ONCE(apiary->leaving);

	msleep(2000);
	list_del_init(&hive_straggler.entry);
	if (waited_for)
		complete(&apiary->home);
}

static noinline void hive_await_stragglers(struct hive_apiary *apiary)
{
	WRITE_ONCE(apiary->leaving, true);
	if (!list_empty(&apiary->stragglers))
		wait_for_completion(&apiary->home);
	apiary->honey++;
}

static void hive_vain_wait(struct hive_apiary *apiary)
{
	list_add(&hive_straggler.entry, &apiary->stragglers);
	apiary->on_errand = hive_straggler_goes;
	apiary->on_leave = hive_await_stragglers;
	schedule_work(&apiary->errand);
}

/* After "fs/proc: do_task_stat: use sig->stats_lock to gather the threads/children stats" (CVE-2024-26686): everybody
 * counts everybody, under one spinlock and without interrupts. */
struct hive_bee {
	struct list_head entry;
	u64 age;
	u64 trips;
};

static LIST_HEAD(hive_bees);

static noinline u64 hive_count_trips(struct hive_apiary *apiary)
{
	struct hive_bee *bee;
	unsigned long flags;
	u64 trips = 0;
	u32 keeper;

	spin_lock_irqsave(&apiary->lid, flags);
	for (keeper = 0; keeper < 1 << 24; keeper++)
		list_for_each_entry(bee, &hive_bees, entry)
			trips += READ_ONCE(bee->trips);
	spin_unlock_irqrestore(&apiary->lid, flags);
	return trips;
}

static int hive_census_taker(void *data)
{
	struct hive_apiary *apiary = data;

	apiary->honey += hive_count_trips(apiary);
	return 0;
}

static void hive_long_census(struct hive_apiary *apiary)
{
	struct task_struct *taker;
	struct hive_bee *bee;
	int i;

	for (i = 0; i < 3000; i++) {
		bee = kzalloc(sizeof(*bee), GFP_KERNEL);
		if (!bee)
			return;
		list_add(&bee->entry, &hive_bees);
	}
	for (i = 1; i >= 0; i--) {
		taker = kthread_create(hive_census_taker, apiary, "hive_census/%d", i);
		if (IS_ERR(taker))
			return;
		kthread_bind(taker, i);
		wake_up_process(taker);
	}
}

/* After "md: fix kmemleak of rdev->serial" (CVE-2024-26900): what a super was given stays when it cannot be added. */
struct hive_super {
	u64 number;
	void *frames;
};

static noinline int hive_take_frames(struct hive_super *super)
{
	super->frames = kvzalloc(48 << 10, GFP_KERNEL);
	return super->frames ? 0 : -ENOMEM;
}

static noinline int hive_add_super(struct hive_apiary *apiary)
{
	struct hive_super super = { .number = apiary->honey };
	int error = hive_take_frames(&super);

	if (error)
		return error;
	if (READ_ONCE(apiary->honey) != ~0ull)
		return -EEXIST;
	kvfree(super.frames);
	return 0;
}

static void hive_lost_frames(struct hive_apiary *apiary)
{
	int i;

	for (i = 0; i < 30; i++)
		hive_add_super(apiary);
}

/* After "drm/amd/amdgpu: fix refcount leak" (CVE-2021-47144): what was got for each of two is put once. */
struct hive_brood {
	refcount_t users;
	u32 cells;
	u8 larvae[1480];
};

static struct kmem_cache *hive_broods;

static noinline struct hive_brood *hive_new_brood(struct hive_apiary *apiary)
{
	struct hive_brood *brood = kmem_cache_zalloc(hive_broods, GFP_KERNEL);

	if (!brood)
		return NULL;
	refcount_set(&brood->users, 1);
	brood->cells = apiary->honey;
	return brood;
}

static void hive_put_brood(struct hive_brood *brood)
{
	if (refcount_dec_and_test(&brood->users))
		kmem_cache_free(hive_broods, brood);
}

static noinline void hive_raise_broods(struct hive_apiary *apiary)
{
	struct hive_brood *brood;
	int i;

	for (i = 0; i < 400; i++) {
		brood = hive_new_brood(apiary);
		if (!brood)
			break;
		refcount_inc(&brood->users);
		hive_put_brood(brood);
		apiary->honey++;
	}
	schedule_delayed_work(&apiary->chore, 1);
}

static void hive_kept_brood(struct hive_apiary *apiary)
{
	hive_broods = kmem_cache_create("hive_brood", sizeof(struct hive_brood), 0, 0, NULL);
	if (!hive_broods)
		return;
	apiary->on_chore = hive_raise_broods;
	schedule_delayed_work(&apiary->chore, 1);
}

const struct hive_mishap hive_swarm_mishaps[] = {
	{ "vain-wait", hive_vain_wait },
	{ "long-census", hive_long_census },
	{ "lost-frames", hive_lost_frames },
	{ "kept-brood", hive_kept_brood },
	{ }
};
