/* A consumer in C, on librabbitmq. Its argument: how many messages one acknowledgement is for. */

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

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

static void tell(int with_cpu)
{
    int events = atoi(setting("BENCHMARK_EVENTS", "1"));
    dprintf(events, "%.6f\n", seconds(CLOCK_MONOTONIC));
    if (with_cpu)
        dprintf(events, "%.6f\n", seconds(CLOCK_PROCESS_CPUTIME_ID));
}

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

static void answered(amqp_connection_state_t connection, const char *what)
{
    check(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL, what);
}

static amqp_connection_state_t consume(void)
{
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    amqp_bytes_t queue = amqp_cstring_bytes(setting("BENCHMARK_QUEUE", ""));
    int heartbeat = atoi(setting("BENCHMARK_HEARTBEAT", "10"));

    check(!amqp_socket_open(socket, "127.0.0.1", atoi(setting("BENCHMARK_PORT", "5672"))), "open");
    check(amqp_login(connection, "/", 0, AMQP_DEFAULT_FRAME_SIZE, heartbeat,
                     AMQP_SASL_METHOD_PLAIN, "guest", "guest").reply_type
          == AMQP_RESPONSE_NORMAL, "login");
    amqp_channel_open(connection, 1);
    answered(connection, "channel");
    amqp_queue_declare(connection, 1, queue, 0, 1, 0, 0, amqp_empty_table);
    answered(connection, "declare");
    amqp_basic_qos(connection, 1, 0, atoi(setting("BENCHMARK_PREFETCH", "100")), 0);
    answered(connection, "qos");
    amqp_basic_consume(connection, 1, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    answered(connection, "consume");
    return connection;
}

int main(int argc, char **argv)
{
    long count = atol(setting("BENCHMARK_COUNT", "0"));
    long together = argc > 1 ? atol(argv[1]) : 1;
    amqp_connection_state_t connection = consume();

    for (long number = 0;; number++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        check(amqp_consume_message(connection, &envelope, NULL, 0).reply_type
              == AMQP_RESPONSE_NORMAL, "consume");
        if (!count || number == 0 || number == count)
            tell(count != 0);
        if ((number + 1) % together == 0)
            amqp_basic_ack(connection, 1, envelope.delivery_tag, together > 1);
        amqp_destroy_envelope(&envelope);
    }
}
