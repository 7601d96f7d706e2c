"""AMQP: connecting, declaring, consuming, settling, publishing."""
