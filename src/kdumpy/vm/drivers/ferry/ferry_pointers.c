// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The faults of pointers, counters, stacks and memory. */
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/math64.h>
#include <linux/percpu.h>
#include <linux/skbuff.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "ferry.h"

/* There is no flagship; the member that is asked for lies more than a page behind its beginning. */
static noinline u32 ferry_read_draught(struct ferry_ship *ship)
{
	return READ_ONCE(ship->draught);
}

static void ferry_far_field(struct ferry_line *line, const char *text)
{
	line->sum += ferry_read_draught(line->flagship);
}

/* The lookup says by an error code that there is no such voyage, and nobody looks. */
static noinline struct ferry_voyage *ferry_voyage_at(struct ferry_line *line, u64 hour)
{
	struct rb_node *at = line->voyages.rb_node;

	while (at) {
		struct ferry_voyage *voyage = rb_entry(at, struct ferry_voyage, node);

		if (voyage->hour == hour)
			return voyage;
		at = hour < voyage->hour ? at->rb_left : at->rb_right;
	}
	return ERR_PTR(-ENODEV);
}

static noinline void ferry_cast_off(struct ferry_line *line)
{
	struct ferry_voyage *voyage = ferry_voyage_at(line, 25);

	voyage->aboard++;
	line->sum += voyage->hour;
}

static void ferry_no_voyage(struct ferry_line *line, const char *text)
{
	ferry_run_tide(line, ferry_cast_off);
}

/* A voyage is freed and stays in the tree; a timer walks on from it, by the kernel's rb_next(). */
static noinline u64 ferry_next_hour(struct ferry_voyage *voyage)
{
	struct rb_node *node = rb_next(&voyage->node);

	return node ? rb_entry(node, struct ferry_voyage, node)->hour : 0;
}

static struct ferry_voyage *ferry_current;

static void ferry_announce(struct ferry_line *line)
{
	line->sum += ferry_next_hour(ferry_current);
}

static void ferry_freed_node(struct ferry_line *line, const char *text)
{
	ferry_plan(line, 9);
	ferry_current = ferry_plan(line, 12);
	ferry_plan(line, 15);
	if (!ferry_current)
		return;
	kmem_cache_free(line->voyage_cache, ferry_current);
	ferry_run_whistle(line, ferry_announce);
}

/* A voyage is freed while its own bell is set: nothing of this driver runs when it rings. */
static void ferry_bell(struct timer_list *bell)
{
	struct ferry_voyage *voyage = container_of(bell, struct ferry_voyage, bell);

	voyage->aboard = 0;
}

static noinline void ferry_end_voyage(struct ferry_line *line, struct ferry_voyage *voyage)
{
	kmem_cache_free(line->voyage_cache, voyage);
	line->sum++;
}

static void ferry_armed_bell(struct ferry_line *line, const char *text)
{
	struct ferry_voyage *voyage = kmem_cache_zalloc(line->voyage_cache, GFP_KERNEL);

	if (!voyage)
		return;
	timer_setup(&voyage->bell, ferry_bell, 0);
	mod_timer(&voyage->bell, jiffies + HZ);
	ferry_end_voyage(line, voyage);
}

/* A ticket is given back once more than it was taken, on the way of a request to the disk. */
static void ferry_ticket_free(struct kref *holders)
{
	pr_info("ferry: the ticket is free\n");
}

static noinline void ferry_ticket_put(struct ferry_ticket *ticket)
{
	kref_put(&ticket->holders, ferry_ticket_free);
	ticket->seat++;
}

static struct ferry_ticket ferry_pass = { .holders = KREF_INIT(1) };

static void ferry_check_in(struct ferry_line *line, struct bio *bio)
{
	ferry_ticket_put(&ferry_pass);
	ferry_ticket_put(&ferry_pass);
}

static void ferry_ticket_twice(struct ferry_line *line, const char *text)
{
	line->on_bio = ferry_check_in;
}

/* A ticket that is on no list is taken off its list. */
static noinline void ferry_remove_ticket(struct ferry_ticket *ticket)
{
	list_del(&ticket->sold);
	ticket->seat = 0;
}

static void ferry_refund(struct ferry_line *line)
{
	ferry_remove_ticket(&ferry_pass);
}

static void ferry_unlisted(struct ferry_line *line, const char *text)
{
	ferry_run_tide(line, ferry_refund);
}

/* The other processor finds, in a call from this one, that its clock is wrong. */
static noinline void ferry_check_clock(void *data)
{
	struct ferry_line *line = data;

	BUG_ON(READ_ONCE(line->speed) != line->distance);
	line->sum++;
}

static void ferry_wrong_clock(struct ferry_line *line, const char *text)
{
	int other = cpumask_any_but(cpu_online_mask, get_cpu());

	smp_call_function_single(other, ferry_check_clock, line, 1);
	put_cpu();
}

/* More are aboard than there are seats: a warning, from a read in sysfs. */
static bool ferry_full, ferry_long_name;

static noinline u64 ferry_sum_load(struct ferry_line *line)
{
	WARN(line->distance > line->speed, "ferry: %llu aboard, %llu seats\n", line->distance, line->speed);
	return line->sum;
}

/* The label is as long as the name, the buffer is not. */
static noinline int ferry_format_label(struct ferry_line *line, char *page)
{
	char label[12];
	size_t room = READ_ONCE(line->distance) + 30;

	snprintf(label, room, "line %llu of %llu, sum %016llx", line->speed, line->distance, line->sum);
	return sysfs_emit(page, "%.11s\n", label);
}

ssize_t ferry_show_load(struct ferry_line *line, char *page)
{
	if (ferry_full)
		return sysfs_emit(page, "%llu\n", ferry_sum_load(line));
	if (ferry_long_name)
		return ferry_format_label(line, page);
	return sysfs_emit(page, "0\n");
}

static void ferry_overbooked(struct ferry_line *line, const char *text)
{
	ferry_full = true;
}

static void ferry_wide_label(struct ferry_line *line, const char *text)
{
	ferry_long_name = true;
}

/* The rate of a voyage without any time. */
static noinline u64 ferry_fill_rate(struct ferry_line *line, u64 hours)
{
	return div64_u64(line->distance * 1000 + line->sum, hours);
}

static void ferry_rate(struct ferry_line *line)
{
	line->sum += ferry_fill_rate(line, line->speed - 12);
}

static void ferry_no_time(struct ferry_line *line, const char *text)
{
	ferry_run_whistle(line, ferry_rate);
}

/* A name that is constant is overwritten, by the kernel's memset(). */
static const char ferry_owner[64] = "the kdumpy line, since the year one";

static noinline void ferry_rename(const char *name, size_t bytes)
{
	memset((void *)name, ' ', bytes);
	ferry_line.sum++;
}

static int ferry_paint(void *data)
{
	ferry_rename(ferry_owner, READ_ONCE(ferry_line.distance));
	return 0;
}

static void ferry_painted(struct ferry_line *line, const char *text)
{
	ferry_run_crew(line, ferry_paint);
}

/* What was only for the start of the module is called again: its memory is gone. */
static noinline void ferry_rebuild(struct ferry_line *line)
{
	line->sum += line->set_up(line);
}

static void ferry_late_setup(struct ferry_line *line, const char *text)
{
	ferry_run_tide(line, ferry_rebuild);
}

/* A thread of the kernel reads what a process has in its memory. */
static noinline char ferry_read_note(const char __user *note)
{
	return READ_ONCE(*(__force const char *)note);
}

static int ferry_reader(void *data)
{
	struct ferry_line *line = data;

	msleep(1500);
	line->sum += ferry_read_note(line->note);
	return 0;
}

static void ferry_foreign_note(struct ferry_line *line, const char *text)
{
	ferry_run_crew(line, ferry_reader);
}

/* A name that is longer than its place, and a checked strcpy(). */
static noinline void ferry_copy_name(struct ferry_voyage *voyage, const char *name)
{
	strcpy(voyage->name, name);
	voyage->aboard++;
}

static void ferry_long_word(struct ferry_line *line, const char *text)
{
	struct ferry_voyage *voyage = ferry_plan(line, 18);

	if (voyage)
		ferry_copy_name(voyage, text);
}

/* The pointer to a per-CPU counter is used as it is. */
static noinline void ferry_count_one(u64 *counter)
{
	WRITE_ONCE(*counter, READ_ONCE(*counter) + 1);
}

static void ferry_raw_counter(struct ferry_line *line, const char *text)
{
	ferry_count_one((__force u64 *)line->passengers);
}

/* Every port is visited from the port before, by a pointer to a function. */
static u64 (*ferry_visit)(struct ferry_line *line, u64 port);

static noinline u64 ferry_visit_port(struct ferry_line *line, u64 port)
{
	volatile u64 cargo[70];

	cargo[port % 70] = port;
	if (!READ_ONCE(line->distance))
		return port;
	return READ_ONCE(ferry_visit)(line, port * 3 + 1) + cargo[port % 70];
}

static void ferry_tour(struct ferry_line *line)
{
	line->sum = ferry_visit_port(line, 5);
}

static void ferry_round_trip(struct ferry_line *line, const char *text)
{
	ferry_visit = ferry_visit_port;
	ferry_run_tide(line, ferry_tour);
}

/* Packets are made and forgotten. */
static noinline struct sk_buff *ferry_send_wave(struct ferry_line *line)
{
	struct sk_buff *skb = alloc_skb(3000, GFP_KERNEL);

	if (skb)
		memset(skb_put(skb, 3000), 0x33, 3000);
	return skb;
}

static noinline int ferry_flood(void *data)
{
	while (ferry_send_wave(data))
		cond_resched();
	return 0;
}

static void ferry_leak_packets(struct ferry_line *line, const char *text)
{
	ferry_run_crew(line, ferry_flood);
}

static void ferry_sink(struct ferry_line *line, const char *text)
{
	line->sunk = 1;
}

const struct ferry_order ferry_pointer_orders[] = {
	{ "far-field", ferry_far_field },
	{ "no-voyage", ferry_no_voyage },
	{ "freed-node", ferry_freed_node },
	{ "armed-bell", ferry_armed_bell },
	{ "ticket-twice", ferry_ticket_twice },
	{ "unlisted", ferry_unlisted },
	{ "wrong-clock", ferry_wrong_clock },
	{ "overbooked", ferry_overbooked },
	{ "wide-label", ferry_wide_label },
	{ "no-time", ferry_no_time },
	{ "painted", ferry_painted },
	{ "late-setup", ferry_late_setup },
	{ "foreign-note", ferry_foreign_note },
	{ "long-word", ferry_long_word },
	{ "raw-counter", ferry_raw_counter },
	{ "round-trip", ferry_round_trip },
	{ "leak-packets", ferry_leak_packets },
	{ "bridge-silent", ferry_sink },
	{ }
};
