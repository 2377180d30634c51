/*
 * Give the kernel a key and keep it in use, for a dump of a guest that has such keys.
 *
 *   holdkey tls NAME      a TCP socket of its own, encrypted by the kernel (AES-128-GCM)
 *   holdkey wireguard NAME  sets the private key of the WireGuard device wg0
 *
 * The key is the first 16 or 32 characters of standard input; it is cleared here once the kernel has it.
 */
#include <arpa/inet.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/tls.h>
#include <linux/wireguard.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char key[33];

static int tls(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	struct tls12_crypto_info_aes_gcm_128 info = {
		.info = {.version = TLS_1_2_VERSION, .cipher_type = TLS_CIPHER_AES_GCM_128}};
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(server, (void *)&address, sizeof(address)) || listen(server, 1) ||
	    getsockname(server, (void *)&address, &length) || connect(client, (void *)&address, length) ||
	    accept(server, NULL, NULL) < 0)
		return perror("connecting"), 1;
	memcpy(info.key, key, sizeof(info.key));
	if (setsockopt(client, 6, 31 /* TCP_ULP */, "tls", 3) || setsockopt(client, 282 /* SOL_TLS */, TLS_TX, &info,
									  sizeof(info)))
		return perror("tls"), 1;
	memset(&info, 0, sizeof(info));
	memset(key, 0, sizeof(key));
	puts("LAB tls key set");
	fflush(stdout);
	for (;;)
		pause();
}

static char message[512];

static void attribute(struct nlmsghdr *header, int type, const void *data, int size)
{
	struct nlattr *attr = (void *)(message + NLMSG_ALIGN(header->nlmsg_len));

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + size;
	memcpy((char *)attr + NLA_HDRLEN, data, size);
	header->nlmsg_len = NLMSG_ALIGN(header->nlmsg_len) + NLA_ALIGN(attr->nla_len);
}

static struct nlmsghdr *ask(int family, int command)
{
	struct nlmsghdr *header = (void *)message;
	struct genlmsghdr *generic = NLMSG_DATA(header);

	memset(message, 0, sizeof(message));
	header->nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN);
	header->nlmsg_type = family;
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	generic->cmd = command;
	generic->version = 1;
	return header;
}

static int wireguard(void)
{
	int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC), family = 0;
	struct nlmsghdr *header = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	struct nlattr *attr;
	int size;

	attribute(header, CTRL_ATTR_FAMILY_NAME, "wireguard", 10);
	if (send(sock, message, header->nlmsg_len, 0) < 0 || (size = recv(sock, message, sizeof(message), 0)) < 0)
		return perror("netlink"), 1;
	for (char *at = message + NLMSG_LENGTH(GENL_HDRLEN); at < message + size; at += NLA_ALIGN(attr->nla_len)) {
		attr = (void *)at;
		if (attr->nla_len < NLA_HDRLEN)
			break;
		if (attr->nla_type == CTRL_ATTR_FAMILY_ID)
			family = *(unsigned short *)(at + NLA_HDRLEN);
	}
	recv(sock, message, sizeof(message), 0);	/* the acknowledgement */
	header = ask(family, WG_CMD_SET_DEVICE);
	attribute(header, WGDEVICE_A_IFNAME, "wg0", 4);
	attribute(header, WGDEVICE_A_PRIVATE_KEY, key, 32);
	if (!family || send(sock, message, header->nlmsg_len, 0) < 0 || recv(sock, message, sizeof(message), 0) < 0 ||
	    ((struct nlmsgerr *)NLMSG_DATA(header))->error)
		return perror("wireguard"), 1;
	memset(message, 0, sizeof(message));
	memset(key, 0, sizeof(key));
	puts("LAB wireguard key set");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2 || read(0, key, 32) < 32)
		return 2;
	return strcmp(argv[1], "tls") ? wireguard() : tls();
}
