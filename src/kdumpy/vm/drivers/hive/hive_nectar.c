// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What is used after it was given back. */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/percpu-refcount.h>
#include <linux/refcount.h>
#include <linux/scatterlist.h>
#include <linux/skbuff.h>

#include "hive.h"

static struct hive_meadow hive_clover;

/* After "media: pvrusb2: fix use after free on context disconnection" (CVE-2023-52445): the context's own thread has
 * destroyed it when the disconnection is told. */
struct hive_escort {
	u64 flights;
	bool done;
	struct hive_meadow *meadow;
	u64 wings[14];
};

static struct hive_escort *hive_escort;

static noinline void hive_escort_destroy(struct hive_escort *escort)
{
	escort->done = true;
	kfree(escort);
}

static int hive_escort_thread(void *data)
{
	hive_escort_destroy(data);
	return 0;
}

static noinline void hive_escort_parted(struct hive_apiary *apiary)
{
	struct hive_escort *escort = hive_escort;

	escort->meadow->bloom--;
	apiary->honey++;
}

static void hive_lost_escort(struct hive_apiary *apiary)
{
	hive_escort = kzalloc(sizeof(*hive_escort), GFP_KERNEL);
	if (!hive_escort)
		return;
	hive_escort->meadow = &hive_clover;
	kthread_run(hive_escort_thread, hive_escort, "hive_escort");
	apiary->on_chore = hive_escort_parted;
	schedule_delayed_work(&apiary->chore, HZ / 2);
}

/* After "media: dvbdev: fix a use-after-free" (CVE-2024-27043): a registration fails and frees, and its caller keeps
 * the pointer. */
struct hive_drone {
	u64 weight;
	struct list_head entry;
	u32 kind;
	int place;
	u64 eyes[8];
};

static struct hive_drone *hive_places[16];
static struct hive_drone *hive_only_drone;

static noinline int hive_add_drone(struct hive_apiary *apiary, struct hive_drone **made)
{
	struct hive_drone *drone = kzalloc(sizeof(*drone), GFP_KERNEL);

	if (!drone)
		return -ENOMEM;
	*made = drone;
	drone->place = 3;
	hive_places[drone->place] = drone;
	list_add(&drone->entry, &apiary->pantry);
	if (READ_ONCE(apiary->honey) != ~0ull) {
		hive_places[drone->place] = NULL;
		list_del(&drone->entry);
		kfree(drone);
		return -EIO;
	}
	return 0;
}

static noinline void hive_remove_drone(struct hive_apiary *apiary, struct hive_drone *drone)
{
	hive_places[drone->place] = NULL;
	list_del(&drone->entry);
	apiary->honey++;
}

static void hive_stillborn_drone(struct hive_apiary *apiary)
{
	hive_add_drone(apiary, &hive_only_drone);
	if (hive_only_drone)
		hive_remove_drone(apiary, hive_only_drone);
}

/* After "net/ipv6: avoid possible UAF in ip6_route_mpath_notify()" (CVE-2024-26852): the last one was released when
 * all are told of it. */
struct hive_trail {
	u64 metres;
	struct hive_meadow *meadow;
	int users;
	u64 turns[6];
};

static noinline void hive_tell_trail(struct hive_apiary *apiary, struct hive_trail *trail)
{
	apiary->honey += trail->meadow->bloom;
	trail->metres++;
}

static noinline void hive_add_trails(struct hive_apiary *apiary)
{
	struct hive_trail *trail, *last = NULL;
	int i;

	for (i = 0; i < 3; i++) {
		trail = kzalloc(sizeof(*trail), GFP_KERNEL);
		if (!trail)
			return;
		trail->meadow = &hive_clover;
		trail->users = 1;
		if (apiary->honey != ~0ull)
			last = trail;
		if (!--trail->users)
			kfree(trail);
	}
	hive_tell_trail(apiary, last);
}

static void hive_short_trail(struct hive_apiary *apiary)
{
	apiary->on_smoke = hive_add_trails;
}

/* After "RDMA/srpt: Do not register event handler until srpt device is fully setup" (CVE-2024-26872): a set-up that
 * fails leaves the handler of events behind. */
struct hive_tunnel {
	u64 length;
	u64 bees;
	struct hive_meadow *meadow;
	u64 bends[21];
};

static struct hive_tunnel *hive_tunnel;

static noinline void hive_refresh_tunnel(struct hive_apiary *apiary)
{
	struct hive_tunnel *tunnel = hive_tunnel;

	WRITE_ONCE(tunnel->meadow->acres, 1);
	apiary->honey++;
}

static noinline int hive_dig_tunnel(struct hive_apiary *apiary)
{
	hive_tunnel = kzalloc(sizeof(*hive_tunnel), GFP_KERNEL);
	if (!hive_tunnel)
		return -ENOMEM;
	hive_tunnel->meadow = &hive_clover;
	apiary->on_chore = hive_refresh_tunnel;
	if (READ_ONCE(apiary->honey) == ~0ull)
		return 0;
	kfree(hive_tunnel);
	return -EBUSY;
}

static void hive_early_horn(struct hive_apiary *apiary)
{
	if (hive_dig_tunnel(apiary))
		apiary->honey++;
	schedule_delayed_work(&apiary->chore, HZ / 4);
}

/* After "Input: powermate - fix use-after-free in powermate_config_complete" (CVE-2023-52475): a transfer ends, and
 * takes the spinlock of the device that is gone. */
struct hive_sting {
	u64 venom;
	u32 length;
	spinlock_t poise;
	u64 barbs[26];
};

static struct hive_sting *hive_sting;

static noinline void hive_sting_complete(struct hive_apiary *apiary)
{
	struct hive_sting *sting = hive_sting;
	unsigned long flags;

	spin_lock_irqsave(&sting->poise, flags);
	apiary->honey++;
	sting->venom = 0;
	spin_unlock_irqrestore(&sting->poise, flags);
}

static noinline void hive_sting_unplug(struct hive_apiary *apiary)
{
	apiary->on_buzz = hive_sting_complete;
	kfree(hive_sting);
}

static void hive_late_sting(struct hive_apiary *apiary)
{
	hive_sting = kzalloc(sizeof(*hive_sting), GFP_KERNEL);
	if (!hive_sting)
		return;
	spin_lock_init(&hive_sting->poise);
	hive_sting_unplug(apiary);
	irq_work_queue(&apiary->buzz);
}

/* After "tipc: skb_linearize the head skb when reassembling msgs" (CVE-2021-47162): a packet is put on a list of
 * packets that two share, and belongs to one of them. */
static noinline void hive_join_cluster(struct sk_buff *cluster, struct sk_buff *bee)
{
	struct sk_buff *last = skb_shinfo(cluster)->frag_list;

	while (last->next)
		last = last->next;
	last->next = bee;
	cluster->data_len += bee->len;
	cluster->len += bee->len;
}

static noinline void hive_drop_cluster(struct hive_apiary *apiary, struct sk_buff *cluster)
{
	kfree_skb(cluster);
	apiary->honey++;
}

static void hive_shared_cluster(struct hive_apiary *apiary)
{
	struct sk_buff *cluster = alloc_skb(256, GFP_KERNEL), *bee = alloc_skb(256, GFP_KERNEL);
	struct sk_buff *late = alloc_skb(256, GFP_KERNEL), *copy;

	if (!cluster || !bee || !late)
		return;
	skb_put_zero(cluster, 64);
	skb_put_zero(bee, 64);
	skb_put_zero(late, 64);
	skb_shinfo(cluster)->frag_list = bee;
	cluster->data_len = bee->len;
	cluster->len += bee->len;
	copy = pskb_copy(cluster, GFP_KERNEL);
	if (!copy)
		return;
	hive_join_cluster(cluster, late);
	hive_drop_cluster(apiary, cluster);
	hive_drop_cluster(apiary, copy);
}

/* After "drm/amdgpu: Fix a use-after-free" (CVE-2021-47142): a table of pages is freed, and its pointer stays. */
struct hive_plot {
	u64 number;
	struct sg_table *pages;
};

static struct hive_plot hive_plot;

static noinline void hive_clear_plot(struct hive_apiary *apiary, struct hive_plot *plot)
{
	if (!plot->pages)
		return;
	sg_free_table(plot->pages);
	kfree(plot->pages);
	apiary->honey++;
}

static void hive_stale_plot(struct hive_apiary *apiary)
{
	hive_plot.pages = kzalloc(sizeof(*hive_plot.pages), GFP_KERNEL);
	if (!hive_plot.pages || sg_alloc_table(hive_plot.pages, 4, GFP_KERNEL))
		return;
	hive_clear_plot(apiary, &hive_plot);
	hive_clear_plot(apiary, &hive_plot);
}

/* After "nvmet: fix a use-after-free" (CVE-2022-48697): an answered request may be gone, and its queue is asked for. */
struct hive_foragers {
	u64 number;
	struct percpu_ref out;
};

struct hive_haul {
	u64 grams;
	u32 state;
	struct hive_foragers *foragers;
	u64 baskets[11];
};

static struct hive_foragers hive_foragers;

static void hive_foragers_home(struct percpu_ref *out)
{
	hive_apiary.honey++;
}

static noinline void hive_answer_haul(struct hive_haul *haul)
{
	haul->state = 2;
	kfree(haul);
}

static noinline void hive_haul_complete(struct hive_apiary *apiary, struct hive_haul *haul)
{
	hive_answer_haul(haul);
	percpu_ref_put(&haul->foragers->out);
	apiary->honey++;
}

static void hive_carry_haul(struct hive_apiary *apiary)
{
	struct hive_haul *haul = kzalloc(sizeof(*haul), GFP_KERNEL);

	if (!haul || percpu_ref_init(&hive_foragers.out, hive_foragers_home, 0, GFP_KERNEL))
		return;
	haul->foragers = &hive_foragers;
	percpu_ref_get(&hive_foragers.out);
	hive_haul_complete(apiary, haul);
}

static void hive_answered_haul(struct hive_apiary *apiary)
{
	apiary->on_errand = hive_carry_haul;
	schedule_work(&apiary->errand);
}

/* After "nvme-tcp: fix UAF when detecting digest errors" (CVE-2022-48686): a loop goes on where recovery has begun. */
struct hive_basket {
	u64 expected;
	struct hive_meadow *meadow;
	u64 left;
	u64 scents[17];
};

static struct hive_basket *hive_basket;

static noinline void hive_give_up_load(struct hive_apiary *apiary)
{
	apiary->leaving = true;
	kfree(hive_basket);
}

static noinline int hive_receive_load(struct hive_apiary *apiary, u64 digest)
{
	struct hive_basket *load = hive_basket;

	load->meadow->bloom++;
	if (load->expected != digest)
		hive_give_up_load(apiary);
	return 1;
}

static void hive_receive_loads(struct hive_apiary *apiary)
{
	u64 digest = 7;

	while (hive_receive_load(apiary, digest++) > 0)
		apiary->honey++;
}

static void hive_bad_digest(struct hive_apiary *apiary)
{
	hive_basket = kzalloc(sizeof(*hive_basket), GFP_KERNEL);
	if (!hive_basket)
		return;
	hive_basket->meadow = &hive_clover;
	hive_basket->expected = 9;
	apiary->on_errand = hive_receive_loads;
	schedule_work(&apiary->errand);
}

/* After "inet: inet_defrag: prevent sk release while still in use" (CVE-2024-26921): a packet is parted from its owner,
 * whose last user it was, and the owner is still an argument. */
struct hive_colony {
	refcount_t users;
	u32 frames;
	struct hive_meadow *meadow;
	u64 brood[28];
};

static struct sk_buff *hive_scent;

static void hive_scent_gone(struct sk_buff *scent)
{
	struct hive_colony *colony = (struct hive_colony *)scent->sk;

	if (refcount_dec_and_test(&colony->users))
		kfree(colony);
}

static noinline void hive_gather_scent(struct sk_buff *scent)
{
	scent->priority++;
	skb_orphan(scent);
}

static noinline void hive_pass_scent(struct hive_apiary *apiary, struct hive_colony *colony, struct sk_buff *scent)
{
	hive_gather_scent(scent);
	apiary->honey += colony->meadow->bloom;
	scent->mark++;
}

static void hive_spread_scent(struct hive_apiary *apiary)
{
	hive_pass_scent(apiary, (struct hive_colony *)hive_scent->sk, hive_scent);
}

static void hive_early_orphan(struct hive_apiary *apiary)
{
	struct hive_colony *colony = kzalloc(sizeof(*colony), GFP_KERNEL);

	hive_scent = alloc_skb(128, GFP_KERNEL);
	if (!colony || !hive_scent)
		return;
	refcount_set(&colony->users, 1);
	colony->meadow = &hive_clover;
	hive_scent->sk = (struct sock *)colony;
	hive_scent->destructor = hive_scent_gone;
	apiary->on_dance = hive_spread_scent;
	mod_timer(&apiary->dance, jiffies + HZ / 5);
}

/* After "drm: Don't unref the same fb many times by mistake due to deadlock handling" (CVE-2023-52486): a second try
 * puts what the first one had put. */
struct hive_plate {
	struct list_head entry;
	refcount_t users;
	u32 width;
	struct hive_meadow *meadow;
	u64 dots[10];
};

static struct hive_plate *hive_plate;

static noinline void hive_put_plate(struct hive_plate *plate)
{
	if (refcount_dec_and_test(&plate->users))
		kfree(plate);
}

static noinline int hive_flip_plate(struct hive_apiary *apiary)
{
	struct hive_plate *plate = NULL;
	int tries, error = -EDEADLK;

	for (tries = 0; tries < 2; tries++) {
		if (!tries) {
			plate = hive_plate;
			refcount_inc(&plate->users);
		} else {
			error = -EINVAL;
		}
		if (plate)
			hive_put_plate(plate);
	}
	apiary->honey++;
	return error;
}

static noinline void hive_close_plates(struct hive_apiary *apiary)
{
	struct hive_plate *plate, *next;

	list_for_each_entry_safe(plate, next, &apiary->pantry, entry) {
		plate->meadow->bloom--;
		list_del(&plate->entry);
		hive_put_plate(plate);
	}
	apiary->honey++;
}

static void hive_cracked_plate(struct hive_apiary *apiary)
{
	hive_plate = kzalloc(sizeof(*hive_plate), GFP_KERNEL);
	if (!hive_plate)
		return;
	refcount_set(&hive_plate->users, 1);
	hive_plate->meadow = &hive_clover;
	list_add(&hive_plate->entry, &apiary->pantry);
	hive_flip_plate(apiary);
	apiary->on_dusk = hive_close_plates;
}

const struct hive_mishap hive_nectar_mishaps[] = {
	{ "lost-escort", hive_lost_escort },
	{ "stillborn-drone", hive_stillborn_drone },
	{ "short-trail", hive_short_trail },
	{ "early-horn", hive_early_horn },
	{ "late-sting", hive_late_sting },
	{ "shared-cluster", hive_shared_cluster },
	{ "stale-plot", hive_stale_plot },
	{ "answered-haul", hive_answered_haul },
	{ "bad-digest", hive_bad_digest },
	{ "early-orphan", hive_early_orphan },
	{ "cracked-plate", hive_cracked_plate },
	{ }
};
