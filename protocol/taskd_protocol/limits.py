"""Limits of the wire: every bound with its unit and its reason.

Those a server may change are told to each peer in WELCOME; the rest are fixed.
"""

PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 2

FRAME_HEADER_BYTES = 4
FRAME_BYTES_MAX = 256 * 1024
"""One frame's body. Small enough that a heartbeat never waits long behind one."""

CHUNK_DATA_BYTES = 128 * 1024
"""What one CHUNK carries, so that control messages pass between two chunks."""

CHUNK_STREAMS_MAX = 8
"""Messages of one connection that may be in pieces at the same time."""

PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
"""A task's packed arguments, or its packed result."""

MESSAGE_BYTES_MAX = PAYLOAD_BYTES_MAX + 256 * 1024
"""A message put together from chunks: one full payload and its envelope."""

PREAUTH_BYTES_MAX = 4 * 1024
"""All that a peer may send before it is known: a HELLO with room to spare."""

PREAUTH_SECONDS = 5.0
"""How long a peer may take for its HELLO after the TLS handshake."""

TLS_HANDSHAKE_SECONDS = 10.0

PREAUTH_CONNECTIONS_MAX = 512
PREAUTH_CONNECTIONS_PER_ADDRESS_MAX = 128

SUBMIT_TASKS_MAX = 10_000
"""Tasks in one SUBMIT: it is decided and committed as one, so it bounds a turn."""

SUBMIT_BYTES_MAX = MESSAGE_BYTES_MAX

NODES_MAX = 1_000
"""Nodes in one WORKFLOW_SUBMIT: what is checked and kept in one turn."""

WORKFLOW_NODES_MAX = 10_000
"""Nodes of one workflow, unless the server was started with another bound."""

KEPT_RESULT_BYTES_MIN = 64 * 1024
"""An agent keeps results that it made for workflows, from this size on: what needs them is sent there rather."""

WAIT_IDS_MAX = 10_000
"""Ids in one WAIT, CANCEL or TASK_QUERY."""

FILTER_IDS_MAX = 1_000
"""Ids in one filter."""

OUTCOME_CREDIT = 16_384
"""Outcomes that a server may push before the client asks for more."""

OUTBOX_BYTES_MAX = 64 * 1024 * 1024
"""What may wait for one slow reader; then the connection is closed."""

HEARTBEAT_MS = 5_000
HEARTBEATS_MISSED = 3
"""After so many periods of silence an agent is dead and its tasks are requeued."""

NAME_CHARS_MAX = 256
"""A task name, a queue, an agent's name, an idempotency key."""

LABELS_MAX = 64

REQUESTS_MAX = 8
"""Alternatives that one task names."""

RESOURCES_MAX = 32
"""Named by one request, or had by one agent."""

RESOURCE_ITEMS_MAX = 1_024
"""Of one resource, that can be told apart."""

AMOUNT_MAX = 1 << 60
"""Of one resource; an exabyte of memory."""

WEIGHT_MAX = 100

TASK_HEARTBEAT_MS_MIN = 500
"""Shortest limit between two heartbeats of a task: what is told in between is told in this time's third."""

DETAILS_BYTES_MAX = 64 * 1024
"""What an attempt may tell of how far it has come, packed."""

EMITTED_BYTES_MAX = 32 * 1024
"""A value that an attempt emits, packed: in base64, it fits a piece of output."""

PROGRESS_CHARS_MAX = 1_000
"""What an attempt says with its progress."""

HEADERS_MAX = 16
HEADERS_CHARS_MAX = 4_096
"""Of one task, names and values together: a thousand tasks in one SUBMIT stay far below its limit."""

LOG_BYTES_UNRECORDED_MAX = 1024 * 1024
"""Log bytes that an agent may have under way; more waits in the agent."""

LOG_DATA_BYTES_MAX = 64 * 1024
"""One log entry's data."""

LOG_BYTES_PER_ATTEMPT_MAX = 64 * 1024 * 1024
"""What is kept of one attempt's output; the rest is dropped with a mark at the cut."""

PAGE_ROWS_MAX = 1_000
"""Rows in one page of a listing."""

PRIORITY_MIN = -100
PRIORITY_MAX = 100
QUEUE_WEIGHT_MAX = 1_000

FAIR_WEIGHTS_MAX = 1_000
"""Fair keys of one queue that have a weight: it is rewritten as a whole."""

DELAY_MS_MAX = 10 * 366 * 24 * 3600 * 1000
"""Ten years: further off is a unit mistaken for another."""

MAX_ATTEMPTS_MAX = 1_000_000

RETRY_CHARS_MAX = 1_024
"""Of the exception types that one retry policy names: it travels with each lease."""

SCHEDULES_MAX = 100_000
"""Kept by one server: what moves of each is in memory, about a kilobyte."""

SCHEDULE_CATCH_UP_MAX = 1_000
"""Missed firings of one schedule that are made up for at once."""

SCHEDULE_SYNC_MAX = 1_000
"""Schedules that one module defines: they are decided on as one."""

LIMITS_MAX = 10_000
"""Limits of queues and task names, with paused queues aside: all of them are in memory."""

TASK_LIMITS_MAX = 4
"""Limits that one task names."""

LIMIT_BURST_MS = 100
"""A rate that names no burst lets begin at once what it lets begin in so long, and at least one."""

LIMIT_AMOUNT_MAX = 1_000_000
"""A limit's concurrency, tokens or burst: more than any server starts."""

SCHEDULE_BACKFILL_MAX = 1_000
"""Firings of the past in one request; the next one goes on behind them."""

SCHEDULE_PREVIEW_MAX = 1_000
"""Firings in one preview."""
