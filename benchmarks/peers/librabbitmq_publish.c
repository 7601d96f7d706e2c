/* A publisher in C, on librabbitmq: one message at a time, or up to a window unconfirmed. */

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WARM_UP = 500, WINDOW = 1000 };

static amqp_connection_state_t connection;
static amqp_bytes_t queue;
static uint64_t sent, confirmed;

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value ? value : otherwise;
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

static void answered(const char *what)
{
    check(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL, what);
}

static void open_channel(void)
{
    amqp_socket_t *socket;

    connection = amqp_new_connection();
    socket = amqp_tcp_socket_new(connection);
    queue = amqp_cstring_bytes(setting("BENCHMARK_QUEUE", ""));
    check(!amqp_socket_open(socket, "127.0.0.1", atoi(setting("BENCHMARK_PORT", "5672"))), "open");
    check(amqp_login(connection, "/", 0, AMQP_DEFAULT_FRAME_SIZE, 0, AMQP_SASL_METHOD_PLAIN,
                     "guest", "guest").reply_type == AMQP_RESPONSE_NORMAL, "login");
    amqp_channel_open(connection, 1);
    answered("channel");
    amqp_confirm_select(connection, 1);
    answered("confirm");
}

static void publish(void)
{
    static char text[100];
    amqp_bytes_t body = { sizeof text, text };
    amqp_basic_properties_t properties;

    memset(text, 'x', sizeof text);
    properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
    properties.content_type = amqp_cstring_bytes("application/octet-stream");
    properties.delivery_mode = 2;
    check(amqp_basic_publish(connection, 1, amqp_empty_bytes, queue, 1, 0, &properties, body)
          == AMQP_STATUS_OK, "publish");
    sent++;
}

/* Read confirmations until at most that many are missing. One queue confirms in order. */
static void confirm(uint64_t most)
{
    while (sent - confirmed > most) {
        amqp_frame_t frame;
        amqp_basic_ack_t *ack;

        amqp_maybe_release_buffers(connection);
        check(amqp_simple_wait_frame(connection, &frame) == AMQP_STATUS_OK
              && frame.frame_type == AMQP_FRAME_METHOD
              && frame.payload.method.id == AMQP_BASIC_ACK_METHOD, "confirmation");
        ack = frame.payload.method.decoded;
        confirmed = ack->multiple ? ack->delivery_tag : confirmed + 1;
    }
}

static int ascending(const void *one, const void *other)
{
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

/* Returns the median time of a message; 0 if they are pipelined. */
static double run(long count, int together)
{
    double *times = calloc(count, sizeof *times), median;

    for (long number = 0; number < count; number++) {
        double began = seconds(CLOCK_MONOTONIC);
        publish();
        if (!together)
            confirm(0);
        else if (sent - confirmed >= WINDOW)
            confirm(WINDOW / 2);
        times[number] = seconds(CLOCK_MONOTONIC) - began;
    }
    confirm(0);
    qsort(times, count, sizeof *times, ascending);
    median = together ? 0 : times[count / 2];
    free(times);
    return median;
}

int main(void)
{
    int together = !strcmp(setting("BENCHMARK_WAY", "one"), "pipelined");
    double began, cpu, median;

    open_channel();
    run(WARM_UP, together);
    began = seconds(CLOCK_MONOTONIC);
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    median = run(atol(setting("BENCHMARK_COUNT", "0")), together);
    dprintf(atoi(setting("BENCHMARK_EVENTS", "1")), "%.9f\n%.9f\n%.9f\n%.9f\n%.9f\n", began, cpu,
            seconds(CLOCK_MONOTONIC), seconds(CLOCK_PROCESS_CPUTIME_ID), median);
    pause();
    return 0;
}
