// A wire with latency between network namespaces, in user space: for kernels without `tc ... netem`. scripts/mpi_hosts.sh
// compiles and starts it.
//
//   wire DELAY_US BITS_PER_S NAMESPACE...     (0 bits: no limit)
//
// Namespace number i gets a device `wire0` with the address 10.77.0.(i + 1)/24. A packet waits until the sender's line is
// free, takes its bytes over the rate, and arrives DELAY_US later. Nothing is dropped: a sender blocks when QUEUE packets
// are under way. What the program itself takes, some tens of microseconds a packet, comes on top of the delay.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { HOSTS = 64, QUEUE = 4096, MTU = 9000 };

typedef struct {
    int64_t due;
    size_t size;
    int to;
    unsigned char bytes[MTU];
} Packet;

// The packets of one sender, in the order in which they arrive.
typedef struct {
    int device;
    int64_t line_free;
    unsigned first, count;
    Packet *packets;
} Host;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void configure(int control, unsigned long request, struct ifreq *name, const char *what) {
    if (ioctl(control, request, name)) fail(what);
}

static void set_address(struct ifreq *name, uint32_t address) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    memcpy(&name->ifr_addr, &in, sizeof in);
}

// A device in a namespace. The descriptor stays good when this process leaves the namespace.
static int open_device(const char *namespace, int number) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", namespace);
    int space = open(path, O_RDONLY);
    if (space < 0 || setns(space, CLONE_NEWNET)) fail(path);
    close(space);
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (device < 0) fail("/dev/net/tun");
    struct ifreq name = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(name.ifr_name, "wire0");
    configure(device, TUNSETIFF, &name, "TUNSETIFF");
    int control = socket(AF_INET, SOCK_DGRAM, 0);
    set_address(&name, 0x0a4d0001 + number);
    configure(control, SIOCSIFADDR, &name, "SIOCSIFADDR");
    set_address(&name, 0xffffff00);
    configure(control, SIOCSIFNETMASK, &name, "SIOCSIFNETMASK");
    name.ifr_mtu = MTU;
    configure(control, SIOCSIFMTU, &name, "SIOCSIFMTU");
    name.ifr_qlen = QUEUE;
    configure(control, SIOCSIFTXQLEN, &name, "SIOCSIFTXQLEN");
    name.ifr_flags = IFF_UP | IFF_RUNNING;
    configure(control, SIOCSIFFLAGS, &name, "SIOCSIFFLAGS");
    close(control);
    return device;
}

static uint64_t number_of(const char *text) {
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno || end == text || *end) {
        fprintf(stderr, "wire: not a whole number: %s\n", text);
        exit(2);
    }
    return number;
}

int main(int arguments, char **argument) {
    int hosts = arguments - 3;
    if (hosts < 2 || hosts > HOSTS) {
        fprintf(stderr, "usage: wire DELAY_US BITS_PER_S NAMESPACE NAMESPACE...\n");
        return 2;
    }
    int64_t delay = number_of(argument[1]) * 1000;
    uint64_t rate = number_of(argument[2]);
    static Host host[HOSTS];
    for (int i = 0; i < hosts; i++) {
        host[i].packets = malloc(QUEUE * sizeof(Packet));
        if (!host[i].packets) fail("malloc");
        host[i].device = open_device(argument[3 + i], i);
    }
    // The default slack of a wait is 50 microseconds.
    prctl(PR_SET_TIMERSLACK, 1000);
    puts("up");
    fflush(stdout);
    for (;;) {
        struct pollfd wait[HOSTS];
        int64_t next = INT64_MAX;
        for (int i = 0; i < hosts; i++) {
            wait[i] = (struct pollfd){.fd = host[i].device, .events = host[i].count < QUEUE ? POLLIN : 0};
            if (host[i].count && host[i].packets[host[i].first].due < next) next = host[i].packets[host[i].first].due;
        }
        int64_t left = next - now();
        struct timespec patience = {left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0};
        if (ppoll(wait, hosts, next == INT64_MAX ? NULL : &patience, NULL) < 0 && errno != EINTR) fail("ppoll");
        for (int i = 0; i < hosts; i++) {
            Host *from = &host[i];
            while (from->count && from->packets[from->first].due <= now()) {
                Packet *packet = &from->packets[from->first];
                if (write(host[packet->to].device, packet->bytes, packet->size) < 0 && errno == EAGAIN) break;
                from->first = (from->first + 1) % QUEUE;
                from->count--;
            }
            while (from->count < QUEUE) {
                Packet *packet = &from->packets[(from->first + from->count) % QUEUE];
                ssize_t size = read(from->device, packet->bytes, MTU);
                if (size <= 0) break;
                // IPv4 alone; its destination is in bytes 16 to 19.
                int to = packet->bytes[19] - 1;
                if (size < 20 || packet->bytes[0] >> 4 != 4 || to < 0 || to >= hosts || to == i) continue;
                int64_t start = now();
                if (start < from->line_free) start = from->line_free;
                from->line_free = start + (rate ? (int64_t)(size * 8 * UINT64_C(1000000000) / rate) : 0);
                packet->due = from->line_free + delay;
                packet->size = size;
                packet->to = to;
                from->count++;
            }
        }
    }
}
