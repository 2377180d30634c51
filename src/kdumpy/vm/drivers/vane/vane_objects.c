// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Memory that was freed, is freed again, is passed over its end, is never freed; lists and counters. */
#include <linux/kthread.h>

#include "vane.h"

/* After "can: bcm: Fix UAF in bcm_proc_show()" (CVE-2023-52922): what is listed was freed before its file goes. */
static noinline void vane_list_surveys(struct vane_mast *mast, struct seq_file *file)
{
	struct vane_survey *survey;

	list_for_each_entry(survey, &mast->surveys, entry)
		seq_printf(file, "%u\n", survey->sensor->scale);
}

static struct vane_sensor vane_barometer = { .kind = 2, .scale = 10 };

static void vane_stale_listing(struct vane_mast *mast)
{
	struct vane_survey *survey = kzalloc(sizeof(*survey), GFP_KERNEL);

	if (!survey)
		return;
	survey->sensor = &vane_barometer;
	list_add(&survey->entry, &mast->surveys);
	mast->on_show = vane_list_surveys;
	kfree(survey);
}

/* After "Bluetooth: Fix use-after-free bugs caused by sco_sock_timeout" (CVE-2024-27398). */
static noinline void vane_call_timeout(struct vane_mast *mast)
{
	mast->caller->line->failures++;
}

static noinline void vane_hang_up(struct vane_mast *mast, struct vane_guest *reader)
{
	kfree(mast->caller);
	mast->storms++;
}

static void vane_late_timeout(struct vane_mast *mast)
{
	mast->caller = kzalloc(sizeof(*mast->caller), GFP_KERNEL);
	if (!mast->caller)
		return;
	mast->caller->line = mast->uplink;
	mast->on_work = vane_call_timeout;
	mast->on_close = vane_hang_up;
	queue_delayed_work(mast->readings, &mast->later, HZ / 2);
}

/* After "net/mlx5: Unregister notifier on eswitch init failure" (CVE-2024-50136): it stays on the chain. */
struct vane_board {
	u64 wired;
	struct notifier_block block;
	u32 state[6];
};

static int vane_board_event(struct notifier_block *block, unsigned long event, void *data)
{
	container_of(block, struct vane_board, block)->wired++;
	return NOTIFY_DONE;
}

static noinline void vane_scrap_board(struct vane_mast *mast, struct vane_board *board)
{
	kfree(board);
	mast->storms++;
}

static void vane_left_notifier(struct vane_mast *mast)
{
	struct vane_board *board = kzalloc(sizeof(*board), GFP_KERNEL);

	if (!board)
		return;
	board->block.notifier_call = vane_board_event;
	if (!register_netdevice_notifier(&board->block))
		vane_scrap_board(mast, board);
}

/* After "char: xillybus: Prevent use-after-free due to race condition" (CVE-2022-45888): open, and unplugged. */
static noinline long vane_read_channel(struct vane_band *channel)
{
	return channel->source ? channel->source->last : 0;
}

static long vane_read(struct vane_mast *mast, struct vane_guest *reader)
{
	return vane_read_channel(reader->channel) + 1;
}

static void vane_open_drawer(struct vane_mast *mast)
{
	mast->on_read = vane_read;
	kfree(mast->channel);
	mast->channel = NULL;
}

/* After "netfilter: nf_tables: disallow non-stateful expression in sets earlier" (CVE-2022-32250). */
struct vane_binding {
	u64 set;
	struct list_head bound;
	u8 key[80];
};

static LIST_HEAD(vane_bindings);

static noinline struct vane_binding *vane_bind_set(struct list_head *bindings, u64 set)
{
	struct vane_binding *binding = kzalloc(sizeof(*binding), GFP_KERNEL);

	if (!binding)
		return NULL;
	binding->set = set;
	list_add(&binding->bound, bindings);
	return binding;
}

static void vane_refused_binding(struct vane_mast *mast)
{
	struct vane_binding *binding = vane_bind_set(&vane_bindings, mast->storms++);

	if (binding && !binding->key[0])
		kfree(binding);			/* refused, and still on the list */
}

/* After "net_sched: introduce tcf_exts_get_net() and tcf_exts_put_net()": the callback's owner is gone. */
struct vane_archive {
	u64 shelf;
	struct vane_almanac *book;
};

struct vane_record {
	struct vane_archive *archive;
	u64 when;
	struct rcu_head rcu;
};

static void vane_record_reclaim(struct rcu_head *rcu)
{
	struct vane_record *record = container_of(rcu, struct vane_record, rcu);

	record->archive->book->pages--;
	kfree(record);
}

static noinline void vane_close_archive(struct vane_archive *archive)
{
	kfree(archive);
	vane_mast.storms++;
}

static struct vane_almanac vane_book = { .pages = 12 };

static void vane_orphan_record(struct vane_mast *mast)
{
	struct vane_archive *archive = kzalloc(sizeof(*archive), GFP_KERNEL);
	struct vane_record *record = kzalloc(sizeof(*record), GFP_KERNEL);

	if (!archive || !record)
		return;
	archive->book = &vane_book;
	record->archive = archive;
	call_rcu(&record->rcu, vane_record_reclaim);
	vane_close_archive(archive);
}

/* After "mISDN: fix possible use-after-free in HFC_cleanup()" (CVE-2021-47356): the module goes, its timer stays. */
struct vane_blink {
	struct timer_list timer;
	u64 count;
};

static void vane_blinked(struct timer_list *timer)
{
	struct vane_blink *blink = container_of(timer, struct vane_blink, timer);

	blink->count++;
	mod_timer(timer, jiffies + 3 * HZ);
}

static void vane_leave_running(struct vane_mast *mast)
{
	struct vane_blink *blink = kzalloc(sizeof(*blink), GFP_KERNEL);

	if (!blink)
		return;
	timer_setup(&blink->timer, vane_blinked, 0);
	mod_timer(&blink->timer, jiffies + 3 * HZ);
}

/* After "usb: cdns3: fix memory double free when handle zero packet" (CVE-2024-26748). */
struct vane_packet {
	u64 number;
	u32 bytes;
	u8 data[180];
};

static noinline int vane_queue_packet(struct vane_mast *mast, struct vane_packet *packet)
{
	if (!packet->bytes) {
		kfree(packet);
		return -EINVAL;
	}
	mast->storms += packet->number;
	return 0;
}

static noinline long vane_submit_packet(struct vane_mast *mast, unsigned long argument)
{
	struct vane_packet *packet = kzalloc(sizeof(*packet), GFP_KERNEL);
	int error;

	if (!packet)
		return -ENOMEM;
	error = vane_queue_packet(mast, packet);
	if (error)
		kfree(packet);
	return error;
}

static void vane_zero_packet(struct vane_mast *mast)
{
	mast->on_ioctl = vane_submit_packet;
}

/* After "video: fbdev: sm712fb: Fix crash in smtcfb_read()": the copy goes on behind the picture. */
static noinline u32 vane_copy_frame(const u32 *from, size_t words)
{
	u32 sum = 0;

	while (words--)
		sum += READ_ONCE(*from++);
	return sum;
}

static long vane_read_frame(struct vane_mast *mast, struct vane_guest *reader)
{
	return vane_copy_frame((const u32 *)mast->frame, 1024 * 1024) + 1;
}

static void vane_past_frame(struct vane_mast *mast)
{
	mast->on_read = vane_read_frame;
}

/* After "net/sctp: fix race condition in sctp_destroy_sock" (CVE-2021-23133): a list without its lock. */
static LIST_HEAD(vane_listeners);

static noinline void vane_flip_listener(struct list_head *listener)
{
	list_add_tail(listener, &vane_listeners);
	list_del(listener);
}

static int vane_restless(void *data)
{
	struct list_head listener;

	for (;;) {
		vane_flip_listener(&listener);
		cond_resched();
	}
	return 0;
}

static void vane_raced_list(struct vane_mast *mast)
{
	int cpu;

	for_each_online_cpu(cpu) {
		struct task_struct *task = kthread_create(vane_restless, mast, "vane_restless/%d", cpu);

		if (IS_ERR(task))
			return;
		kthread_bind(task, cpu);
		wake_up_process(task);
	}
}

/* After "ax25: Fix netdev refcount issue" (CVE-2024-36009): the last use is given back by refcount_dec(). */
static noinline void vane_leave_port(struct vane_mast *mast, struct vane_guest *reader)
{
	refcount_dec(&reader->users);
	mast->storms++;
}

static void vane_last_user(struct vane_mast *mast)
{
	mast->on_close = vane_leave_port;
}

/* After "crypto: user - fix memory leak in crypto_report" (CVE-2019-19062): the answer is forgotten on an error. */
static noinline int vane_build_report(struct vane_mast *mast)
{
	u64 *report = kmalloc(8000, GFP_KERNEL);

	if (!report)
		return -ENOMEM;
	report[0] = mast->storms;
	if (!mast->pixel_clock)
		return -EINVAL;
	kfree(report);
	return 0;
}

static void vane_lost_report(struct vane_mast *mast)
{
	int i;

	for (i = 0; i < 8; i++)
		mast->storms -= vane_build_report(mast);
}

const struct vane_case vane_object_cases[] = {
	{ "stale-listing", vane_stale_listing },
	{ "late-timeout", vane_late_timeout },
	{ "left-notifier", vane_left_notifier },
	{ "open-drawer", vane_open_drawer },
	{ "refused-binding", vane_refused_binding },
	{ "orphan-record", vane_orphan_record },
	{ "leave-running", vane_leave_running },
	{ "zero-packet", vane_zero_packet },
	{ "past-frame", vane_past_frame },
	{ "raced-list", vane_raced_list },
	{ "last-user", vane_last_user },
	{ "lost-report", vane_lost_report },
	{ }
};
