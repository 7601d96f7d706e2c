"""A consumer with an SQL session around each run: KIND is coroutines, batches, or else."""

import asyncio
import contextlib
import os

from sqlalchemy import Column, String, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, declarative_base

import clihelper

KIND = os.environ['KIND']
WAIT = {'connect_args': {'timeout': 30}}

Base = declarative_base()


class Shipped(Base):
    __tablename__ = 'shipped'
    name = Column(String, primary_key=True)


class WithSession:
    sessions: dict = {}

    def _setup(self):
        self.engine = create_engine(f'sqlite:///{self.application_config["database"]}', **WAIT)
        Base.metadata.create_all(self.engine)

    @contextlib.contextmanager
    def session(self, handled, around):
        with around(handled), Session(self.engine) as handled_by:
            self.sessions[id(handled)] = handled_by
            try:
                yield
                handled_by.commit()
            finally:
                del self.sessions[id(handled)]


    def around_message(self, message):
        return self.session(message, super().around_message)

    def around_messages(self, messages):
        return self.session(messages, super().around_messages)


class Plain(WithSession, clihelper.ConsumerController):
    def on_message(self, body, message):
        self.sessions[id(message)].add(Shipped(name=body))
        if body == 'fail':
            self.sessions[id(message)].flush()
            raise ValueError(body)


class Batches(WithSession, clihelper.ConsumerController):
    def on_messages(self, messages):
        for message in messages:
            self.sessions[id(messages)].add(Shipped(name=message.body))
        if 'fail' in [message.body for message in messages]:
            raise ValueError('fail')


class Coroutines(clihelper.AsyncConsumerController):
    def _setup(self):
        database = self.application_config['database']
        self.engine = create_async_engine(f'sqlite+aiosqlite:///{database}', **WAIT)
        self.sessions = {}
        return self.create()

    async def create(self):
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def _cleanup(self):
        await self.engine.dispose()

    @contextlib.asynccontextmanager
    async def around_message(self, message):
        async with super().around_message(message), AsyncSession(self.engine) as session:
            self.sessions[message] = session
            try:
                yield
                await session.commit()
            except asyncio.CancelledError:
                await session.rollback()
                self.logger.info('rolled back %s', message.body)
                raise
            finally:
                del self.sessions[message]

    async def on_message(self, body, message):
        self.sessions[message].add(Shipped(name=body))
        if body == 'fail':
            raise ValueError(body)
        if body == 'slow':
            await asyncio.sleep(600)


if __name__ == '__main__':
    clihelper.setup('surrounded')
    clihelper.run({'batches': Batches, 'coroutines': Coroutines}.get(KIND, Plain))
