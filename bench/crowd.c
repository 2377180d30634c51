/*
 * A crowd: some thousand tasks as a busy server has them, for a dump to be measured on.
 *
 *   crowd TASKS FILES FROZEN
 *
 * TASKS   how many tasks there shall be, this program's own (some more may come out)
 * FILES   a directory for the page cache, and for many inodes and dentries
 * FROZEN  a file system that is frozen, so that whoever writes to it waits in state D
 *
 * Each task waits for something else: a pipe, a futex, poll, epoll, a socket, a lock of a file, a semaphore, a message,
 * a signal, a child of vfork() (D), a frozen file system (D), the mmap_lock of a process that waits for it (D).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CACHE_FILES = 96, CACHE_FILE_MB = 8, SMALL_FILES = 20000, NOT_THERE = 60000, FOREVER = 100000, PAGE = 4096 };
enum { ANONYMOUS_MB = 5, POOL_THREADS = 7, PAIRS = 8, MAPPED = 24, OPENED = 16 };

static const char *files, *frozen;
static char pool[1 << 20];
static int number, barrier[2];

static void die(const char *what)
{
	printf("LAB failed: crowd: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Text-like bytes: words out of a small vocabulary, neither zero nor random. */
static void fill_pool(void)
{
	static const char *words[] = {"request ", "index=", "0x", "error ", "user ", "session ", "\n", "cache-hit ",
		"12", "977", "write ", "/var/lib/", "queue", "0.003 ", "GET ", "ff", "e1", "7c", "a", "Q"};
	unsigned long seed = 88172645463325252UL;

	for (size_t at = 0; at < sizeof(pool) - 16;) {
		const char *word;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		word = words[seed % (sizeof(words) / sizeof(words[0]))];
		memcpy(pool + at, word, strlen(word));
		at += strlen(word);
	}
}

static void fill(char *memory, size_t size, unsigned long salt)
{
	for (size_t at = 0; at < size; at += PAGE) {
		memcpy(memory + at, pool + (salt * 7919 + at * 31) % (sizeof(pool) - PAGE), PAGE);
		*(unsigned long *)(memory + at) = salt << 32 | at;
	}
}

static void fill_cache(void)
{
	char path[256], *buffer = malloc(1 << 20);

	for (int file = 0; file < CACHE_FILES; file++) {
		int fd;

		snprintf(path, sizeof(path), "%s/cache-%d", files, file);
		fd = open(path, O_RDWR | O_CREAT, 0644);
		if (fd < 0)
			die(path);
		for (int part = 0; part < CACHE_FILE_MB; part++) {
			fill(buffer, 1 << 20, file * CACHE_FILE_MB + part);
			if (write(fd, buffer, 1 << 20) != 1 << 20)
				die("writing a file");
		}
		close(fd);
	}
	free(buffer);
}

static void fill_dentries(void)
{
	char path[256];
	struct stat found;

	for (int file = 0; file < SMALL_FILES; file++) {
		if (file % 500 == 0) {
			snprintf(path, sizeof(path), "%s/small-%d", files, file / 500);
			mkdir(path, 0755);
		}
		snprintf(path, sizeof(path), "%s/small-%d/record-of-some-length-%d", files, file / 500, file);
		close(open(path, O_WRONLY | O_CREAT, 0644));
	}
	for (int name = 0; name < NOT_THERE; name++) {
		snprintf(path, sizeof(path), "%s/cache-%d-missing", files, name);
		stat(path, &found);
	}
}

/* --- the kinds of tasks; none returns --- */

static void nap(void)
{
	for (;;)
		sleep(FOREVER);
}

static void wait_pipe(void)
{
	int ends[2];
	char byte;

	if (pipe(ends) == 0)
		(void)!read(ends[0], &byte, 1);
	nap();
}

static void wait_poll(void)
{
	struct pollfd polled[4] = {{eventfd(0, 0), POLLIN, 0}, {inotify_init(), POLLIN, 0},
		{timerfd_create(CLOCK_MONOTONIC, 0), POLLIN, 0}, {0, 0, 0}};
	struct itimerspec far = {.it_value.tv_sec = FOREVER};

	inotify_add_watch(polled[1].fd, files, IN_MODIFY);
	timerfd_settime(polled[2].fd, 0, &far, NULL);
	poll(polled, 3, -1);
	nap();
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static void *pool_thread(void *argument)
{
	long which = (long)argument;
	char name[16];

	snprintf(name, sizeof(name), "pool-%d/%ld", number, which);
	prctl(PR_SET_NAME, name);
	if (which % 4 == 1)
		wait_pipe();
	if (which % 4 == 2)
		wait_poll();
	if (which % 4 == 3)
		nap();
	pthread_mutex_lock(&mutex);
	for (;;)
		pthread_cond_wait(&condition, &mutex);
	return argument;
}

static void start(void *(*body)(void *), long which)
{
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	if (pthread_create(&thread, &small, body, (void *)which))
		die("a thread");
}

static void threads(void)
{
	for (long which = 0; which < POOL_THREADS; which++)
		start(pool_thread, which);
	pool_thread((void *)0);
}

static void mapped(void)
{
	char path[256], *memory = mmap(NULL, ANONYMOUS_MB << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int which = 0; which < MAPPED; which++) {
		int fd;
		volatile char *file;

		snprintf(path, sizeof(path), "%s/cache-%d", files, (number * 7 + which) % CACHE_FILES);
		fd = open(path, O_RDONLY);
		file = mmap(NULL, 1 << 20, PROT_READ, MAP_SHARED, fd, which << 12);
		if (fd < 0 || file == MAP_FAILED)
			die("a mapping");
		for (int page = 0; page < 8; page++)
			(void)file[page << 12];
		if (which >= OPENED)
			close(fd);
	}
	fill(memory, ANONYMOUS_MB << 20, number + 10000);
	wait_pipe();
}

static void tcp(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int server = socket(AF_INET, SOCK_STREAM, 0), events = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN};

	if (bind(server, (void *)&address, sizeof(address)) || listen(server, PAIRS) ||
	    getsockname(server, (void *)&address, &length))
		die("a TCP server");
	for (int pair = 0; pair < PAIRS; pair++) {
		int client = socket(AF_INET, SOCK_STREAM, 0), accepted;

		if (connect(client, (void *)&address, length) || (accepted = accept(server, NULL, NULL)) < 0)
			die("a TCP connection");
		event.data.fd = accepted;
		epoll_ctl(events, EPOLL_CTL_ADD, accepted, &event);
		(void)!write(accepted, "unread", 6);
	}
	event.data.fd = server;
	epoll_ctl(events, EPOLL_CTL_ADD, server, &event);
	epoll_wait(events, &event, 1, -1);
	nap();
}

static void unix_and_udp(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
	struct sockaddr_un named = {.sun_family = AF_UNIX};
	int pair[2], udp = socket(AF_INET, SOCK_DGRAM, 0), server = socket(AF_UNIX, SOCK_STREAM, 0);
	char byte;

	snprintf(named.sun_path, sizeof(named.sun_path), "%s/socket-%d", files, number);
	if (bind(udp, (void *)&address, sizeof(address)) || bind(server, (void *)&named, sizeof(named)) ||
	    listen(server, 8) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		die("sockets");
	(void)!recv(number % 2 ? udp : pair[0], &byte, 1, 0);
	nap();
}

static void system_v(void)
{
	int semaphore = semget(IPC_PRIVATE, 4, IPC_CREAT | 0600), queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
	int segment = shmget(IPC_PRIVATE, 64 << 10, IPC_CREAT | 0600);
	struct sembuf down = {0, -1, 0};
	struct { long type; char text[8]; } message;
	char *shared = shmat(segment, NULL, 0);

	if (shared != (void *)-1)
		fill(shared, 64 << 10, number);
	if (number % 2)
		semop(semaphore, &down, 1);
	else
		msgrcv(queue, &message, sizeof(message.text), 0, 0);
	nap();
}

static void lock_of_a_file(void)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/cache-%d", files, number % 8);
	fd = open(path, O_RDWR);
	fcntl(fd, F_SETLKW, &whole);	/* the first one of eight has it, the others wait */
	nap();
}

static void signals(void)
{
	sigset_t all;
	int which;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	raise(SIGUSR1);
	sigdelset(&all, SIGUSR1);
	sigwait(&all, &which);
	nap();
}

static void stopped_and_zombie(void)
{
	if (fork() == 0)
		_exit(0);
	raise(SIGSTOP);
	nap();
}

static void by_vfork(void)
{
	if (vfork() == 0) {
		for (;;)
			pause();
	}
	nap();
}

/* Those that wait in D for the frozen file system wait first until it is frozen. */
static void until_frozen(void)
{
	char byte;

	(void)!read(barrier[0], &byte, 1);
}

static void writer(void)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/written-%d", frozen, number % 4);
	fd = open(path, O_RDWR);
	until_frozen();
	(void)!write(fd, "x", 1);
	nap();
}

static char *page_of_frozen;

static void *maps(void *argument)
{
	prctl(PR_SET_NAME, "mapper");
	sleep(2);		/* behind the one that faults */
	mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	nap();
	return argument;
}

static void mmap_lock(void)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/written-%d", frozen, number % 4);
	fd = open(path, O_RDWR);
	page_of_frozen = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page_of_frozen == MAP_FAILED)
		die("mapping the frozen file");
	(void)*(volatile char *)page_of_frozen;
	until_frozen();
	start(maps, 1);
	start(maps, 2);
	start(maps, 3);
	*(volatile char *)page_of_frozen = 1;		/* waits in ext4_page_mkwrite() with the mmap_lock */
	nap();
}

static void busy(void)
{
	setpriority(PRIO_PROCESS, 0, 19);
	for (;;)
		;
}

static const struct kind {
	const char *name;
	void (*body)(void);
	int tasks;
	int every;	/* in each round of this number */
} kinds[] = {
	{"pool", threads, POOL_THREADS + 1, 1}, {"mapped", mapped, 1, 1}, {"tcp", tcp, 1, 1}, {"sockets", unix_and_udp, 1, 1},
	{"sleeper", nap, 1, 1}, {"sysv", system_v, 1, 1}, {"poller", wait_poll, 1, 1}, {"locker", lock_of_a_file, 1, 1},
	{"signals", signals, 1, 1}, {"stopped", stopped_and_zombie, 2, 4}, {"vforked", by_vfork, 2, 4},
	{"writer", writer, 1, 2}, {"faulter", mmap_lock, 4, 4}, {"busy", busy, 1, 60},
};

int main(int argc, char **argv)
{
	int wanted = argc > 3 ? atoi(argv[1]) : 0, tasks = 0, fd;
	char path[256];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 4)
		return 2;
	files = argv[2];
	frozen = argv[3];
	fill_pool();
	puts("LAB crowd: files");
	fill_cache();
	puts("LAB crowd: dentries");
	fill_dentries();
	for (int file = 0; file < 4; file++) {
		snprintf(path, sizeof(path), "%s/written-%d", frozen, file);
		fd = open(path, O_RDWR | O_CREAT, 0644);
		if (fd < 0 || ftruncate(fd, PAGE))
			die(path);
		close(fd);
	}
	if (pipe(barrier))
		die("a pipe");
	puts("LAB crowd: tasks");
	for (int round = 0; tasks < wanted; round++) {
		for (size_t which = 0; which < sizeof(kinds) / sizeof(kinds[0]); which++) {
			const struct kind *kind = &kinds[which];
			char name[16];
			pid_t made;

			if (round % kind->every)
				continue;
			number = round;
			made = fork();
			if (made < 0)
				die("fork");
			if (made == 0) {
				close(barrier[1]);
				snprintf(name, sizeof(name), "%s-%d", kind->name, round);
				prctl(PR_SET_NAME, name);
				kind->body();
				nap();
			}
			tasks += kind->tasks;
		}
	}
	sleep(5);
	fd = open(frozen, O_RDONLY);
	if (fd < 0 || ioctl(fd, FIFREEZE, 0))
		die("freezing");
	close(barrier[1]);
	sleep(8);
	printf("LAB crowd: %d tasks\n", tasks);
	return 0;
}
