"""pika's BlockingConnection in a program with options, a YAML configuration and logging."""

import argparse
import logging.config
import runpy
import sys

import yaml

parser = argparse.ArgumentParser()
parser.add_argument('-c', '--config', required=True)
with open(parser.parse_args().config) as file:
    configuration = yaml.safe_load(file)
logging.config.dictConfig(configuration['Logging'])
runpy.run_path(f'{sys.path[0]}/pika_consumer.py')
