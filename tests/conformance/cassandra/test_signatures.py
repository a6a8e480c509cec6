"""What the double offers has the names and signatures of the driver's own classes, so that an upgrade cannot drift.

Every public name of a class of the driver is listed below: as offered, or as not offered. A driver that adds, drops or
changes one fails here, and somebody decides what it means for the double.
"""

from __future__ import annotations

import inspect
import re

import cassandra.cluster
import cassandra.metadata
import cassandra.policies
import cassandra.query
import cassandra.timestamps
import pytest
from cassandra import ConsistencyLevel, WriteType
from cassandra.cluster import ExecutionProfile
from cassandra.policies import RetryPolicy, SpeculativeExecutionPlan, SpeculativeExecutionPolicy
from cassandra.query import BatchStatement, SimpleStatement

from sim.cassandra import errors
from sim.conform.cassandra_sides import DoubleSide


def words(text):
    return set(text.split())


SESSION = (
    words(
        """cluster default_consistency_level default_fetch_size default_serial_consistency_level default_timeout encoder
        execute execute_async hosts is_shutdown keyspace prepare row_factory set_keyspace shutdown
        use_client_timestamp"""
    ),
    words(
        """add_or_renew_pool add_request_init_listener client_protocol_handler execute_concurrent
        execute_concurrent_async execute_concurrent_with_args execute_graph execute_graph_async
        execution_profile_clone_update get_execution_profile get_pool_state get_pools max_trace_wait on_down on_remove
        prepare_on_all_hosts remove_pool remove_request_init_listener session_id submit timestamp_generator
        update_created_pools user_type_registered"""
    ),
)

FUTURE = (
    words(
        """add_callback add_callbacks add_errback attempted_hosts clear_callbacks coordinator_host custom_payload
        has_more_pages is_schema_agreed query result row_factory session start_fetching_next_page warnings"""
    ),
    # `send_request` is the driver's own business; the double's is another.
    words(
        """default_timeout get_all_query_traces get_query_trace get_query_trace_ids message request_encoded_size
        send_request"""
    ),
)

PREPARED = (
    words(
        """bind column_metadata consistency_level custom_payload fetch_size is_routing_key_index keyspace
        protocol_version query_id query_string result_metadata result_metadata_id retry_policy routing_key_indexes
        serial_consistency_level column_encryption_policy from_message"""
    ),
    set(),
)

BOUND = (
    words(
        """bind consistency_level custom_payload fetch_size is_idempotent keyspace prepared_statement retry_policy
        routing_key serial_consistency_level values"""
    ),
    set(),
)

CLUSTER = (
    words("default_retry_policy is_shutdown metadata protocol_version shutdown timestamp_generator"),
    words(
        """add_execution_profile add_host add_prepared address_translator allow_beta_protocol_version application_name
        application_version auth_provider client_id cloud column_encryption_policy compression connect connect_timeout
        connect_to_remote_hosts connection_class connection_factory contact_points control_connection
        control_connection_timeout conviction_policy_factory cql_version endpoint_factory executor
        get_connection_holders get_control_connection_host get_core_connections_per_host get_max_connections_per_host
        get_max_requests_per_connection get_min_requests_per_connection idle_heartbeat_interval idle_heartbeat_timeout
        listeners load_balancing_policy max_schema_agreement_wait metrics metrics_enabled monitor_reporting_enabled
        monitor_reporting_interval no_compact on_add on_down on_remove on_up port prepare_on_all_hosts profile_manager
        protocol_downgrade reconnection_policy refresh_keyspace_metadata refresh_materialized_view_metadata
        refresh_nodes refresh_schema_metadata refresh_table_metadata refresh_user_aggregate_metadata
        refresh_user_function_metadata refresh_user_type_metadata register_listener register_user_type remove_host
        reprepare_on_up scheduler schema_event_refresh_window schema_metadata_enabled sessions
        set_core_connections_per_host set_max_connections_per_host set_max_requests_per_connection
        set_meta_refresh_enabled set_min_requests_per_connection signal_connection_failure sockopts ssl_context
        ssl_options status_event_refresh_window token_metadata_enabled topology_event_refresh_window
        unregister_listener"""
    ),
)

METADATA = (
    words("all_hosts cluster_name keyspaces partitioner"),
    words(
        """add_or_return_host can_support_partitioner dbaas export_schema_as_string get_host get_replicas
        rebuild_token_map refresh remove_host token_map"""
    ),
)


@pytest.fixture(scope="module")
def doubles():
    session = DoubleSide().session
    session.execute("CREATE TABLE t (p int PRIMARY KEY, v int)")
    prepared = session.prepare("INSERT INTO t (p, v) VALUES (?, ?)")
    future = session.execute_async(prepared, (1, 1))
    future.result()
    return {
        "Session": session,
        "ResponseFuture": future,
        "PreparedStatement": prepared,
        "BoundStatement": prepared.bind((1, 1)),
        "Cluster": session.cluster,
        "Metadata": session.cluster.metadata,
    }


PAIRS = [
    (cassandra.cluster.Session, SESSION),
    (cassandra.cluster.ResponseFuture, FUTURE),
    (cassandra.query.PreparedStatement, PREPARED),
    (cassandra.query.BoundStatement, BOUND),
    (cassandra.cluster.Cluster, CLUSTER),
    (cassandra.metadata.Metadata, METADATA),
]
NAMES = [real.__name__ for real, _ in PAIRS]


@pytest.mark.parametrize(("real", "listed"), PAIRS, ids=NAMES)
def test_every_public_name_of_the_driver_is_listed(real, listed):
    offered, not_offered = listed
    assert not offered & not_offered
    assert {name for name in dir(real) if not name.startswith("_")} == offered | not_offered


@pytest.mark.parametrize(("real", "listed"), PAIRS, ids=NAMES)
def test_what_is_offered_is_there_with_the_drivers_signature(doubles, real, listed):
    double = doubles[real.__name__]
    for name in sorted(listed[0]):
        ours = getattr(double, name)
        theirs = inspect.getattr_static(real, name)
        if not (inspect.isroutine(theirs) or inspect.isfunction(theirs)) or isinstance(theirs, classmethod):
            continue
        assert callable(ours), name
        assert shape(inspect.signature(ours)) == shape(inspect.signature(theirs))[1:], name


@pytest.mark.parametrize(("real", "listed"), PAIRS, ids=NAMES)
def test_what_is_not_offered_is_not_there_by_accident(doubles, real, listed):
    present = {name for name in listed[1] if hasattr(doubles[real.__name__], name)}
    assert present <= {"send_request"}


def shape(signature):
    """Names, kinds and defaults; one anonymous sentinel is as good as another."""
    return [(each.name, each.kind, default_of(each)) for each in signature.parameters.values()]


def default_of(parameter):
    default = parameter.default
    if default is inspect.Parameter.empty:
        return "required"
    if default is cassandra.cluster.EXEC_PROFILE_DEFAULT:
        return "default profile"
    return "unset" if type(default) is object else default


def test_constructors_of_the_statements_an_application_makes(doubles):
    """BoundStatement is made by applications, too: its double must take what the driver's takes of them."""
    theirs = inspect.signature(cassandra.query.BoundStatement.__init__)
    assert next(iter(theirs.parameters)) == "self"
    assert type(doubles["BoundStatement"])(doubles["PreparedStatement"]).bind((1, 2)).values
    assert isinstance(doubles["BoundStatement"], cassandra.query.BoundStatement)
    assert isinstance(doubles["PreparedStatement"], cassandra.query.PreparedStatement)


def test_retry_policies_are_called_with_what_they_take():
    def bind(name, *arguments, **named):
        inspect.signature(getattr(RetryPolicy, name)).bind(RetryPolicy(), *arguments, **named)

    level = ConsistencyLevel.QUORUM
    bind("on_read_timeout", "query", retry_num=0, **errors.read_timeout(level, 1, 2, False).info)
    bind("on_write_timeout", "query", retry_num=0, **errors.write_timeout(level, 1, 2, WriteType.SIMPLE).info)
    bind("on_unavailable", "query", retry_num=0, **errors.unavailable(level, 2, 1).info)
    bind("on_request_error", "query", level, error=Exception(), retry_num=0)
    assert [getattr(RetryPolicy, name) for name in ("RETRY", "RETHROW", "IGNORE", "RETRY_NEXT_HOST")] == [0, 1, 2, 3]


def test_speculative_execution_is_called_with_what_it_takes():
    inspect.signature(SpeculativeExecutionPolicy.new_plan).bind(None, "keyspace", "statement")
    inspect.signature(SpeculativeExecutionPlan.next_execution).bind(None, "host")


def test_profiles_have_what_the_double_reads():
    profile = ExecutionProfile()
    for name in (
        "consistency_level",
        "request_timeout",
        "retry_policy",
        "row_factory",
        "serial_consistency_level",
        "speculative_execution_policy",
    ):
        assert hasattr(profile, name)


def test_a_batch_holds_its_statements_as_the_double_reads_them(doubles):
    batch = BatchStatement()
    batch.add(doubles["PreparedStatement"], (1, 2))
    batch.add(SimpleStatement("INSERT INTO t (p) VALUES (%s)"), (3,))
    (prepared, simple) = batch._statements_and_parameters
    assert prepared[:2] == (True, doubles["PreparedStatement"].query_id)
    assert list(prepared[2]) == [1, 2]
    assert simple[:2] == (False, "INSERT INTO t (p) VALUES (3)")


def test_timestamps_of_clients_are_made_as_the_driver_makes_them(doubles):
    ours = doubles["Cluster"].timestamp_generator
    theirs = cassandra.timestamps.MonotonicTimestampGenerator()
    assert callable(ours)
    assert callable(theirs)
    for generator in (ours, theirs):
        first, second = generator(), generator()
        assert second > first > 10**15, "microseconds since 1970, never the same twice"


def test_the_result_set_is_the_drivers_own(doubles):
    result = doubles["Session"].execute("SELECT p, v FROM t")
    assert type(result) is cassandra.cluster.ResultSet
    assert result.column_names == ["p", "v"]
    assert result.all() == [(1, 1)]
    assert re.fullmatch("[0-9.]+", cassandra.__version__)
