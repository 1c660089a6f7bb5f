"""The coordinator: the one door through which the state changes.

A turn is: ``apply`` for each command, ``tick`` when time has something to say,
then ``take_turn``, which places what is ready and hands over all mutations and
effects since the last one. The shell stages the mutations as one atomic batch and
releases the effects, and the answers, when a flush covers it.

A command that raises has changed nothing. Time and chance are handed in.
"""

import random
from dataclasses import dataclass
from typing import assert_never

from taskd.core import (
    access,
    agents,
    buckets,
    cancel,
    checkpoints,
    drafts,
    drains,
    due,
    fair,
    families,
    following,
    gates,
    holdups,
    jobs,
    lapses,
    leftovers,
    limiting,
    log_retention,
    moves,
    placement,
    preemption,
    readings,
    refunds,
    reports,
    retention,
    retry,
    schedule_looks,
    schedules,
    stillness,
    submit,
    timers,
    workflows,
)
from taskd.core.agent_commands import (
    AckAttempts,
    AddCredit,
    AppendLogs,
    BeatHeart,
    DrainAgent,
    HearAgent,
    KeepCheckpoints,
    LoseConnection,
    MarkStarted,
    NackAttempts,
    OfferAgent,
)
from taskd.core.commands import (
    NOTHING_LOADED,
    Answer,
    CancelTasks,
    Command,
    DropLapsed,
    EndSession,
    GiveBack,
    GoOn,
    HastenTasks,
    Loaded,
    Now,
    OrderAgent,
    OrderQueue,
    PurgeFinished,
    RefillTimers,
    RefillWindow,
    RefundTasks,
    ReleaseDue,
    RemoveLimit,
    RetryTasks,
    RevokeToken,
    SetLimit,
    StartJob,
    StepJob,
    StoreToken,
    SubmitTasks,
    SweepFair,
    SweepLogs,
    SyncLimits,
    TakeGate,
    TakeGates,
    UseInvitation,
    WeighFairKey,
    WeighQueue,
)
from taskd.core.effects import Effect, TasksEnded, WantLine
from taskd.core.events import Event
from taskd.core.lines import REFILL_BYTES, task_of
from taskd.core.noting import noted
from taskd.core.records import Mutation
from taskd.core.schedule_commands import (
    BackfillSchedule,
    LookAtSchedules,
    OrderSchedule,
    PutSchedule,
    SyncSchedules,
    TriggerSchedule,
)
from taskd.core.workflow_commands import (
    MapItems,
    OrderWorkflow,
    RerunTasks,
    SignalWorkflow,
    SpawnTasks,
    SubmitWorkflow,
    TakeFlow,
    WakeTask,
)
from taskd.core.working import Settings, Working


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn has come to."""

    mutations: list[Mutation]
    effects: list[Effect]
    events: list[Event]


class Coordinator:
    """Every rule, over one working set.

    Attributes:
        working: To be read by the shell; changed by nobody else.
    """

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self.working = Working(settings, rng)

    def apply(self, command: Command, now: Now, loaded: Loaded = NOTHING_LOADED) -> Answer:  # noqa: C901, PLR0911, PLR0912, PLR0915 - one case a command: the table itself
        """Decide on one command.

        Args:
            command: What is asked.
            now: This instant.
            loaded: The records asked for by ``NeedRecords`` when it was applied before.

        Raises:
            NeedRecords: Load these, and apply it again; nothing was changed.
            TaskdError: It is refused; nothing was changed.
        """
        w = self.working
        match command:
            case SubmitTasks():
                return submit.submit(w, command, now, loaded)
            case AckAttempts():
                return reports.ack(w, command, now, loaded)
            case NackAttempts():
                return reports.nack(w, command, now, loaded)
            case CancelTasks():
                return cancel.cancel(w, command, now, loaded)
            case RetryTasks():
                return retry.retry(w, command, now, loaded)
            case HastenTasks():
                return due.hasten(w, command, now, loaded)
            case StartJob():
                return jobs.start(w, command, now)
            case PutSchedule():
                return schedules.put(w, command, now, loaded)
            case SyncSchedules():
                return schedules.sync(w, command, now, loaded)
            case TriggerSchedule():
                return schedules.trigger(w, command, now, loaded)
            case BackfillSchedule():
                return schedules.backfill(w, command, now, loaded)
            case OfferAgent():
                return agents.offer(w, command, now)
            case AppendLogs():
                return reports.append_logs(w, command, now)
            case KeepCheckpoints():
                checkpoints.keep(w, command, now)
            case MarkStarted():
                return reports.mark_started(w, command, now)
            case AddCredit():
                agents.add_credit(w, command)
            case HearAgent():
                agents.hear(w, command, now)
            case BeatHeart():
                agents.beat(w, command, now)
            case LoseConnection():
                agents.lose_connection(w, command)
            case DrainAgent():
                agents.drain(w, command)
            case StoreToken():
                access.store(w, command, now)
            case RevokeToken():
                access.revoke(w, command)
            case EndSession():
                access.end_session(w, command, now)
            case UseInvitation():
                access.use_invitation(w, command, now)
            case RefillWindow():
                self._refill_window(command)
            case RefillTimers():
                timers.refill(w, command, now)
            case ReleaseDue():
                due.release(w, command, now, loaded)
            case OrderQueue():
                drains.order_queue(w, command)
            case WeighQueue():
                drains.weigh_queue(w, command)
            case WeighFairKey():
                drains.weigh_fair_key(w, command)
            case SetLimit():
                limiting.set_limit(w, command, now, loaded)
            case RemoveLimit():
                limiting.remove(w, command)
            case SyncLimits():
                return limiting.sync(w, command, now, loaded)
            case OrderAgent():
                drains.order_agent(w, command)
            case OrderSchedule():
                schedules.order(w, command, now, loaded)
            case LookAtSchedules():
                schedule_looks.look(w, command, now, loaded)
            case RefundTasks():
                refunds.refund(w, command, loaded)
            case StepJob():
                jobs.step(w, command, now, loaded)
            case PurgeFinished():
                retention.purge(w, command, now, loaded)
            case SweepLogs():
                log_retention.sweep(w, command, now, loaded)
            case DropLapsed():
                for bucket_id, record in lapses.drop(w, command, now, loaded):
                    buckets.lapse(w, bucket_id, record, now)
            case SweepFair():
                fair.sweep(w, command, now)
            case SubmitWorkflow():
                return workflows.submit(w, command, now, loaded)
            case OrderWorkflow():
                workflows.order(w, command, now, loaded)
            case SignalWorkflow():
                workflows.signal(w, command, loaded)
            case TakeFlow():
                readings.take(w, command, now)
            case TakeGate():
                gates.take(w, command)
            case TakeGates():
                gates.take_some(w, command)
            case GiveBack():
                stillness.give_back(w, command, loaded)
            case MapItems():
                readings.take_items(w, command, now)
            case RerunTasks():
                readings.rerun(w, command, now, loaded)
            case SpawnTasks():
                families.spawn(w, command, now)
            case WakeTask():
                families.wake(w, command, loaded)
            case GoOn():
                pass  # the turn's end does it
            case _:
                assert_never(command)
        return None

    def tick(self, now: Now) -> None:
        """Do what time alone asks for: silent agents, due timers and schedules, retention, lapses, idle drafts."""
        w = self.working
        gap_ms = 0 if w.ticked_mono_ms is None else now.mono_ms - w.ticked_mono_ms
        w.ticked_mono_ms = now.mono_ms
        agents.tick(w, now, gap_ms)
        holdups.tick(w, now)
        timers.tick(w, now)
        retention.tick(w, now)
        lapses.tick(w, now)
        drafts.tick(w, now)
        fair.tick(w, now)
        schedule_looks.tick(w, now)
        if w.gates.watched or w.gates.still:
            stillness.tick(w, now)

    def next_deadline_mono_ms(self) -> int:
        """Return when ``tick`` has something to do, if nothing else happens before."""
        w = self.working
        return min(
            w.silence_look_mono_ms,
            timers.next_deadline_mono_ms(w.timers),
            schedule_looks.next_deadline_mono_ms(w),
            w.next_purge_mono_ms,
            w.next_lapse_mono_ms,
            w.limits_wake_mono_ms,
            stillness.next_look_mono_ms(w) if w.gates.watched or w.gates.still else timers.NEVER_MONO_MS,
            w.fair.next_sweep_mono_ms if w.fair.paces else timers.NEVER_MONO_MS,
        )

    def take_turn(self, now: Now) -> Turn:
        """Place what is ready; hand over what has changed since the last turn."""
        w = self.working
        if w.happened or w.succeeded or w.moving or w.unread:
            moves.advance(w, now)
        if w.gates.touched or w.gates.walk_after is not None:
            gates.advance(w, now)
        leftovers.sweep(w)
        preemption.look(w, now)
        placement.place(w, now)
        if w.spent:
            buckets.write(w, now)
        for line in w.dirty_lines.values():
            count = line.wanted(lean=w.is_lean)
            if count:
                line.start_refill(count)
                w.refilling += count
                w.effects.append(WantLine(line.id, line.tail, count, REFILL_BYTES))
        if w.ended:
            w.effects.append(TasksEnded(w.ended))
            if w.schedules.of_task:
                following.note_ended(w, now)
        if w.told:
            w.effects.append(TasksEnded(w.told))
            w.told = []
        w.close_turn(now.wall_ms)
        if w.noted:
            changes = [noted((kind, record_id, record)) for (kind, record_id), record in w.noted.items()]
            w.events += [change for change in changes if change is not None]
            w.noted.clear()
        turn = Turn(w.mutations, w.effects, w.events)
        w.mutations, w.effects, w.events = [], [], []
        return turn

    def _refill_window(self, command: RefillWindow) -> None:
        w = self.working
        line = w.lines_by_id[command.line]
        w.refilling -= line.refilling
        for task in line.refill([task_of(entry, entry.rank) for entry in command.entries], last=command.last):
            w.tasks[task.spec.id] = task
            if not task.fresh:
                task.ready_mono_ms = w.ticked_mono_ms or 0
                if task.gates:
                    gates.watch(w, task)
        w.note_head(line)
        w.dirty_lines[line.id] = line  # it may want more
