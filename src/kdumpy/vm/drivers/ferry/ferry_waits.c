// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The faults of waiting: locks of the network, readers, requests, circles of three, loops. */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/rcupdate.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>

#include "ferry.h"

/* The network's lock is held while a pilot is waited for who does not come. */
static noinline void ferry_wait_pilot(struct ferry_line *line)
{
	wait_event(line->pilot, READ_ONCE(line->speed) == 99);
	line->sum++;
}

static int ferry_enter_port(void *data)
{
	rtnl_lock();
	ferry_wait_pilot(data);
	rtnl_unlock();
	return 0;
}

static void ferry_no_pilot(struct ferry_line *line, const char *text)
{
	ferry_run_crew(line, ferry_enter_port);
}

/* A reader of the routes goes to sleep, and a writer waits for all readers. */
static noinline void ferry_read_route(struct ferry_line *line)
{
	int index = srcu_read_lock(&line->routes);

	while (READ_ONCE(line->speed) == 12)
		schedule_timeout_idle(HZ);
	srcu_read_unlock(&line->routes, index);
}

static int ferry_passenger(void *data)
{
	ferry_read_route(data);
	return 0;
}

static noinline void ferry_replace_route(struct ferry_line *line)
{
	synchronize_srcu(&line->routes);
	line->sum++;
}

static void ferry_old_route(struct ferry_line *line, const char *text)
{
	ferry_run_crew(line, ferry_passenger);
	msleep(300);
	ferry_replace_route(line);
}

/* Three crews, three locks, a circle. */
static noinline int ferry_load_cars(void *data)
{
	struct ferry_line *line = data;

	mutex_lock(&line->cars);
	msleep(1000);
	mutex_lock(&line->trucks);
	line->sum++;
	mutex_unlock(&line->trucks);
	mutex_unlock(&line->cars);
	return 0;
}

static noinline int ferry_load_trucks(void *data)
{
	struct ferry_line *line = data;

	mutex_lock(&line->trucks);
	msleep(1000);
	mutex_lock(&line->bikes);
	line->sum++;
	mutex_unlock(&line->bikes);
	mutex_unlock(&line->trucks);
	return 0;
}

static noinline int ferry_load_bikes(void *data)
{
	struct ferry_line *line = data;

	mutex_lock(&line->bikes);
	msleep(1000);
	mutex_lock(&line->cars);
	line->sum++;
	mutex_unlock(&line->cars);
	mutex_unlock(&line->bikes);
	return 0;
}

static void ferry_three_crews(struct ferry_line *line, const char *text)
{
	ferry_run_crew(line, ferry_load_cars);
	ferry_run_crew(line, ferry_load_trucks);
	ferry_run_crew(line, ferry_load_bikes);
}

/* A way out forgets the quay's lock; who comes next waits for ever. */
static noinline int ferry_moor(struct ferry_line *line)
{
	spin_lock(&line->quay);
	if (line->speed < 100)
		return -EBUSY;
	spin_unlock(&line->quay);
	return 0;
}

static noinline void ferry_count_waiting(struct ferry_line *line)
{
	spin_lock(&line->quay);
	line->sum++;
	spin_unlock(&line->quay);
}

static void ferry_next_ship(struct ferry_line *line)
{
	ferry_count_waiting(line);
}

static void ferry_lost_lock(struct ferry_line *line, const char *text)
{
	ferry_moor(line);
	preempt_enable();			/* this task goes on and sleeps: only the lock is lost */
	ferry_run_tide(line, ferry_next_ship);
}

/* A berth is looked for without an end, in a reader's section. */
static noinline void ferry_find_berth(struct ferry_line *line)
{
	rcu_read_lock();
	while (READ_ONCE(line->speed) == 12)
		cpu_relax();
	rcu_read_unlock();
}

static void ferry_no_berth(struct ferry_line *line, const char *text)
{
	ferry_run_tide(line, ferry_find_berth);
}

/* A request goes to the disk, and nothing comes back. */
static void ferry_lost_request(struct ferry_line *line, const char *text)
{
	line->keep_bio = true;
}

const struct ferry_order ferry_wait_orders[] = {
	{ "no-pilot", ferry_no_pilot },
	{ "old-route", ferry_old_route },
	{ "three-crews", ferry_three_crews },
	{ "lost-lock", ferry_lost_lock },
	{ "no-berth", ferry_no_berth },
	{ "lost-request", ferry_lost_request },
	{ }
};
