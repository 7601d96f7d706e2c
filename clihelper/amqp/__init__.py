"""AMQP over kombu: connecting, declaring, settling, publishing."""
