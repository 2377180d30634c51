/*
 * Make what a kernel holds for a process besides memory and files, for a dump of a guest that has such things:
 * shared memory, semaphores and a message queue of System V, an eBPF map and program, signals that wait.
 */
#include <linux/bpf.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ipc(void)
{
	struct { long type; char text[16]; } message = {.type = 1, .text = "fifteen letters"};
	int memory = shmget(0x5eed, 90000, IPC_CREAT | 0640), queue = msgget(0x9e0e, IPC_CREAT | 0600);
	char *at = shmat(memory, NULL, 0);

	if (memory < 0 || queue < 0 || at == (void *)-1 || semget(0x5e3a, 3, IPC_CREAT | 0666) < 0)
		return perror("ipc"), 1;
	for (int page = 0; page < 3; page++)
		at[4096 * page] = 1;
	return msgsnd(queue, &message, 16, 0) || msgsnd(queue, &message, 10, 0);
}

static int bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int programs(void)
{
	union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 5,
			      .map_name = "counters"};
	int fd = bpf(BPF_MAP_CREATE, &map), sock = socket(AF_INET, SOCK_DGRAM, 0), program;
	struct bpf_insn code[] = {
		{.code = 0xbf, .dst_reg = 6, .src_reg = 1},			/* r6 = r1 */
		{.code = 0x62, .dst_reg = 10, .off = -4, .imm = 2},		/* *(u32 *)(r10 -4) = 2 */
		{.code = 0xbf, .dst_reg = 2, .src_reg = 10},			/* r2 = r10 */
		{.code = 0x07, .dst_reg = 2, .imm = -4},			/* r2 += -4 */
		{.code = 0x18, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = fd}, {0},	/* r1 = map */
		{.code = 0x85, .imm = BPF_FUNC_map_lookup_elem},
		{.code = 0x15, .dst_reg = 0, .off = 2},				/* if r0 == 0 goto +2 */
		{.code = 0xb4, .dst_reg = 1, .imm = 1},				/* w1 = 1 */
		{.code = 0xdb, .dst_reg = 0, .src_reg = 1},			/* lock *(u64 *)(r0 +0) += r1 */
		{.code = 0x61, .dst_reg = 0, .src_reg = 6, .off = 0},		/* r0 = *(u32 *)(r6 +0): the length */
		{.code = 0x95},							/* exit */
	};
	union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = sizeof(code) / sizeof(*code),
			       .insns = (unsigned long)code, .license = (unsigned long)"GPL",
			       .prog_name = "count_packets"};

	program = bpf(BPF_PROG_LOAD, &attr);
	if (fd < 0 || program < 0 || setsockopt(sock, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)))
		return perror("bpf"), 1;
	return 0;
}

int main(void)
{
	union sigval value = {.sival_int = 7};
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGRTMIN + 3);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	raise(SIGUSR1);
	sigqueue(getpid(), SIGRTMIN + 3, value);
	sigqueue(getpid(), SIGRTMIN + 3, value);
	if (ipc() || programs())
		return 1;
	puts("LAB objects held");
	fflush(stdout);
	for (;;)
		pause();
}
