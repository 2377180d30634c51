// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Pointers to nothing, numbers that are wrong, and what the kernel's own checks find. */
#include <linux/delay.h>
#include <linux/kref.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/skbuff.h>
#include <net/netlink.h>

#include "hive.h"

/* After "nvmet-tcp: Fix a kernel panic when host sends an invalid H2C PDU length" (CVE-2023-52454): a length that came
 * from outside leads past the end of the list of pages. */
static struct sg_table hive_jars;

static noinline void hive_lay_out_jars(struct hive_apiary *apiary, u32 length)
{
	struct scatterlist *jar = hive_jars.sgl;
	u32 part;

	while (length) {
		part = min_t(u32, length, jar->length - 16);
		apiary->honey += jar->offset + part;
		length -= part;
		jar = sg_next(jar);
	}
}

static void hive_fill_long_wish(struct hive_apiary *apiary)
{
	hive_lay_out_jars(apiary, READ_ONCE(apiary->crest));
	apiary->honey++;
}

static void hive_long_wish(struct hive_apiary *apiary)
{
	struct scatterlist *jar;
	int i;

	if (sg_alloc_table(&hive_jars, 3, GFP_KERNEL))
		return;
	for_each_sg(hive_jars.sgl, jar, 3, i)
		sg_set_page(jar, virt_to_page(apiary->lane), 1024, 0);
	apiary->crest = 65536;
	apiary->on_errand = hive_fill_long_wish;
	schedule_work(&apiary->errand);
}

/* After "RDMA/qedr: Fix qedr_create_user_qp error flow" (CVE-2024-26743): a creation that fails leaves something
 * behind, and the close warns. */
struct hive_jar {
	struct list_head entry;
	u64 grams;
};

static noinline int hive_fill_jar(struct hive_apiary *apiary)
{
	struct hive_jar *jar = kzalloc(sizeof(*jar), GFP_KERNEL);

	if (!jar)
		return -ENOMEM;
	list_add(&jar->entry, &apiary->pantry);
	if (READ_ONCE(apiary->honey) != ~0ull)
		return -EFAULT;
	list_del(&jar->entry);
	kfree(jar);
	return 0;
}

static noinline void hive_shut_pantry(struct hive_apiary *apiary)
{
	WARN_ON(!list_empty(&apiary->pantry));
	apiary->honey = 0;
}

static void hive_left_jar(struct hive_apiary *apiary)
{
	apiary->on_dusk = hive_shut_pantry;
	hive_fill_jar(apiary);
}

/* After "Squashfs: check the inode number is not the invalid value of zero" (CVE-2024-26982): who is number 0 finds the
 * index that nobody uses, and there is nothing in it. */
struct hive_cell {
	u64 honey;
	u64 wax;
	u64 brood;
};

struct hive_index {
	u32 comb;
	u32 cells;
	struct hive_cell cell[30];
};

static struct hive_index *hive_indexes[4];

static noinline struct hive_index *hive_index_of(u32 comb)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(hive_indexes); i++)
		if (hive_indexes[i]->comb == comb)
			return hive_indexes[i];
	return hive_indexes[0];
}

static noinline void hive_find_cell(struct hive_apiary *apiary)
{
	struct hive_index *index = hive_index_of(READ_ONCE(apiary->crest));
	u32 last = READ_ONCE(index->cells) - 1;

	apiary->honey += index->cell[last].honey;
}

static void hive_empty_index(struct hive_apiary *apiary)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(hive_indexes); i++) {
		hive_indexes[i] = kzalloc(sizeof(struct hive_index), GFP_KERNEL);
		if (!hive_indexes[i])
			return;
		hive_indexes[i]->comb = i < 3 ? 7 + i : 0;
		hive_indexes[i]->cells = i < 3 ? 30 : 0;
	}
	apiary->crest = 0;
	apiary->on_look = hive_find_cell;
}

/* After "net/sched: act_mirred: don't override retval if we already lost the skb" (CVE-2024-26739): a packet is out of
 * hand, and the error says that it is to be dropped. */
static noinline int hive_redirect_pollen(struct hive_apiary *apiary, struct sk_buff *pollen)
{
	skb_orphan(pollen);
	apiary->lane->stats.tx_dropped++;
	dev_kfree_skb_any(pollen);
	return -ENETDOWN;
}

static noinline void hive_classify_pollen(struct hive_apiary *apiary, struct sk_buff *pollen)
{
	if (hive_redirect_pollen(apiary, pollen))
		dev_kfree_skb_any(pollen);
	apiary->honey++;
}

static void hive_spent_pollen(struct hive_apiary *apiary)
{
	apiary->on_flight = hive_classify_pollen;
}

/* After "block: add check that partition length needs to be aligned with block size" (CVE-2023-52458): a cut request
 * ends in an error, and gives back the seal that it never had. */
struct hive_seal {
	u64 kind;
	u64 date;
	void *wax;
};

struct hive_crate {
	u64 grams;
	int status;
	struct hive_seal *seal;
};

static struct hive_crate *hive_crate;

static noinline void hive_break_seal(struct hive_apiary *apiary, struct hive_crate *crate)
{
	kfree(crate->seal->wax);
	apiary->honey++;
}

static void hive_crate_ended(struct hive_apiary *apiary)
{
	if (READ_ONCE(hive_crate->status))
		hive_break_seal(apiary, hive_crate);
	apiary->honey++;
}

static void hive_cut_crate(struct hive_apiary *apiary)
{
	hive_crate = kzalloc(sizeof(*hive_crate), GFP_KERNEL);
	if (!hive_crate)
		return;
	hive_crate->status = -EIO;
	apiary->on_dance = hive_crate_ended;
	mod_timer(&apiary->dance, jiffies + HZ / 5);
}

/* After "net/bnx2x: Prevent access to a freed page in page_pool" (CVE-2024-26859): two resets give back the same page. */
static struct page *hive_sheets[8];

static noinline void hive_strip_sheet(struct hive_apiary *apiary, unsigned int number)
{
	struct page *sheet = READ_ONCE(hive_sheets[number]);

	put_page(sheet);
	WRITE_ONCE(hive_sheets[number], NULL);
	apiary->honey++;
}

static int hive_stripper(void *data)
{
	hive_strip_sheet(data, 5);
	return 0;
}

static void hive_two_strippers(struct hive_apiary *apiary)
{
	hive_sheets[5] = alloc_page(GFP_KERNEL);
	if (!hive_sheets[5])
		return;
	kthread_run(hive_stripper, apiary, "hive_scrape/0");
	msleep(300);
	kthread_run(hive_stripper, apiary, "hive_scrape/1");
}

/* After "net: ice: Fix potential NULL pointer dereference in ice_bridge_setlink()" (CVE-2024-26855): an attribute that
 * the message does not have. */
static noinline void hive_read_letter(struct hive_apiary *apiary, struct nlmsghdr *letter)
{
	struct nlattr *envelope = nlmsg_find_attr(letter, 0, 12), *page;
	int left;

	nla_for_each_nested(page, envelope, left)
		apiary->honey += nla_type(page);
	apiary->honey++;
}

static void hive_get_letter(struct hive_apiary *apiary)
{
	static struct nlmsghdr letter = { .nlmsg_len = NLMSG_HDRLEN };

	hive_read_letter(apiary, &letter);
	apiary->honey++;
}

static void hive_bare_letter(struct hive_apiary *apiary)
{
	apiary->on_smoke = hive_get_letter;
}

/* After "ext4: fix double-free of blocks due to wrong extents moved_len" (CVE-2024-26704): what was freed twice is
 * counted twice, in no gaps at all. */
struct hive_frame {
	u32 free;
	u32 gaps;
	u64 taken;
};

static struct hive_frame hive_frame;

static noinline u32 hive_mean_gap(struct hive_frame *frame)
{
	return READ_ONCE(frame->free) / READ_ONCE(frame->gaps);
}

static void hive_trim_frame(struct hive_apiary *apiary)
{
	apiary->honey += hive_mean_gap(&hive_frame);
}

static void hive_free_cells(struct hive_frame *frame, u32 cells)
{
	frame->taken &= ~((1ull << cells) - 1);
	frame->free += cells;
}

static void hive_freed_cells(struct hive_apiary *apiary)
{
	hive_frame.taken = 0xf;
	hive_free_cells(&hive_frame, 4);
	hive_free_cells(&hive_frame, 4);
	apiary->on_smoke = hive_trim_frame;
}

/* After "usb: hub: Guard against accesses to uninitialized BOS descriptors" (CVE-2023-52477). */
struct hive_charter {
	u64 length;
	u64 rights;
	u64 duties;
	u64 winters;
};

struct hive_village {
	u32 houses;
	u32 level;
	struct hive_charter *charter;
};

static struct hive_village *hive_village;

static noinline u64 hive_winter_stores(struct hive_village *village)
{
	return READ_ONCE(village->charter->winters) * village->houses;
}

static void hive_village_event(struct hive_apiary *apiary)
{
	apiary->honey += hive_winter_stores(hive_village);
}

static void hive_no_charter(struct hive_apiary *apiary)
{
	hive_village = kzalloc(sizeof(*hive_village), GFP_KERNEL);
	if (!hive_village)
		return;
	hive_village->houses = 3;
	apiary->on_errand = hive_village_event;
	schedule_work(&apiary->errand);
}

/* After "i40e: Fix kernel crash during module removal" (CVE-2022-48688): an opening that failed has freed the tenant
 * whom the module's exit sends away. */
struct hive_tenant {
	u64 rent[6];
	u64 state;
};

static struct hive_tenant *hive_tenant;

static noinline void hive_evict_tenant(struct hive_apiary *apiary)
{
	struct hive_tenant *tenant = READ_ONCE(hive_tenant);

	if (READ_ONCE(tenant->state) == 1)
		apiary->honey++;
	kfree(tenant);
}

static void hive_gone_tenant(struct hive_apiary *apiary)
{
	hive_tenant = kzalloc(sizeof(*hive_tenant), GFP_KERNEL);
	apiary->on_leave = hive_evict_tenant;
	kfree(hive_tenant);
	WRITE_ONCE(hive_tenant, NULL);
}

/* After "USB: usb-storage: Prevent divide-by-0 error in isd200_ata_command" (CVE-2024-27059): numbers of a device that
 * says that it has none. */
struct hive_stack {
	u16 floors;
	u16 combs;
	u32 capacity;
};

static struct hive_stack *hive_stack;

static noinline u32 hive_comb_number(struct hive_stack *stack, u32 cell)
{
	return cell % stack->combs + cell / (stack->combs * stack->floors);
}

static int hive_stack_thread(void *data)
{
	struct hive_apiary *apiary = data;

	apiary->honey += hive_comb_number(hive_stack, 4711);
	return 0;
}

static void hive_flat_stack(struct hive_apiary *apiary)
{
	hive_stack = kzalloc(sizeof(*hive_stack), GFP_KERNEL);
	if (!hive_stack)
		return;
	hive_stack->floors = 4;
	kthread_run(hive_stack_thread, apiary, "hive_stack");
}

/* After "Bluetooth: rfcomm: Fix null-ptr-deref in rfcomm_check_security" (CVE-2024-26903): an answer comes when the
 * connection is gone. */
struct hive_stalk {
	void *hub;
	u64 level;
};

struct hive_chatter {
	u64 state;
	struct hive_stalk *wire;
};

static struct hive_chatter *hive_chatter;

static noinline bool hive_trusted_talk(struct hive_chatter *talk)
{
	struct hive_stalk *wire = READ_ONCE(talk->wire);

	return READ_ONCE(wire->hub) && talk->state == 2;
}

static int hive_talk_thread(void *data)
{
	struct hive_apiary *apiary = data;

	msleep(300);
	if (hive_trusted_talk(hive_chatter))
		apiary->honey++;
	return 0;
}

static void hive_late_reply(struct hive_apiary *apiary)
{
	struct hive_stalk *wire = kzalloc(sizeof(*wire), GFP_KERNEL);

	hive_chatter = kzalloc(sizeof(*hive_chatter), GFP_KERNEL);
	if (!hive_chatter || !wire)
		return;
	hive_chatter->wire = wire;
	kthread_run(hive_talk_thread, apiary, "khived");
	WRITE_ONCE(hive_chatter->wire, NULL);
	kfree(wire);
}

/* After "nfs: fix UAF in direct writes" (CVE-2024-26958): a request is completed by the one who scheduled it, and by
 * the last of its parts. */
struct hive_harvest {
	struct kref users;
	u32 parts;
	u64 grams;
	u64 weights[13];
};

static struct hive_harvest *hive_harvest;

static void hive_harvest_free(struct kref *users)
{
	kfree(container_of(users, struct hive_harvest, users));
}

static noinline void hive_harvest_done(struct hive_apiary *apiary, struct hive_harvest *harvest)
{
	kref_put(&harvest->users, hive_harvest_free);
	apiary->honey++;
}

static void hive_bring_harvest(struct hive_apiary *apiary)
{
	hive_harvest_done(apiary, hive_harvest);
	hive_harvest_done(apiary, hive_harvest);
}

static void hive_twice_done(struct hive_apiary *apiary)
{
	hive_harvest = kzalloc(sizeof(*hive_harvest), GFP_KERNEL);
	if (!hive_harvest)
		return;
	kref_init(&hive_harvest->users);
	apiary->on_errand = hive_bring_harvest;
	schedule_work(&apiary->errand);
}

/* After "tipc: Check the bearer type before calling tipc_udp_nl_bearer_add()" (CVE-2024-26663): one kind of thing is
 * taken for another. */
struct hive_visitor {
	struct list_head entry;
	u64 name;
};

struct hive_guesthouse {
	u64 rooms;
	u64 price;
	struct list_head visitors;
};

struct hive_nest {
	u64 height;
	char species[48];
};

struct hive_dwelling {
	u32 kind;
	u32 floor;
	void *details;
};

static noinline bool hive_known_visitor(struct hive_dwelling *dwelling, u64 name)
{
	struct hive_guesthouse *house = dwelling->details;
	struct hive_visitor *visitor;

	list_for_each_entry(visitor, &house->visitors, entry)
		if (visitor->name == name)
			return true;
	return false;
}

static noinline void hive_receive_visitor(struct hive_apiary *apiary, struct hive_dwelling *dwelling)
{
	if (!hive_known_visitor(dwelling, 17))
		apiary->honey++;
	apiary->honey++;
}

static void hive_wrong_dwelling(struct hive_apiary *apiary)
{
	struct hive_dwelling *dwelling = kzalloc(sizeof(*dwelling), GFP_KERNEL);
	struct hive_nest *nest = kzalloc(sizeof(*nest), GFP_KERNEL);

	if (!dwelling || !nest)
		return;
	strscpy(nest->species, "apis mellifera carnica, of the hills", sizeof(nest->species));
	dwelling->details = nest;
	hive_receive_visitor(apiary, dwelling);
}

const struct hive_mishap hive_comb_mishaps[] = {
	{ "long-wish", hive_long_wish },
	{ "left-jar", hive_left_jar },
	{ "empty-index", hive_empty_index },
	{ "spent-pollen", hive_spent_pollen },
	{ "cut-crate", hive_cut_crate },
	{ "two-strippers", hive_two_strippers },
	{ "bare-letter", hive_bare_letter },
	{ "freed-cells", hive_freed_cells },
	{ "no-charter", hive_no_charter },
	{ "gone-tenant", hive_gone_tenant },
	{ "flat-stack", hive_flat_stack },
	{ "late-reply", hive_late_reply },
	{ "twice-done", hive_twice_done },
	{ "wrong-dwelling", hive_wrong_dwelling },
	{ }
};
