"""Which test finds which planted bug: a row for each patch, with the quickest test there is."""

from __future__ import annotations

from typing import Final

DISK: Final = "tests/tolaria/disk/"
ROLLBACK: Final = "tests/tolaria/rollback/"
CODEC: Final = "tests/leyline/test_codec.py::"
POWER: Final = "tests/reliability/test_power_loss.py::"
MUTANTS: Final = {
    "01-file-not-synced": (
        DISK + "test_checkpoint.py::test_files_are_durable_before_the_checkpoint_has_its_name"
    ),
    "02-fsync-does-nothing": DISK + "test_files.py::test_a_sync_reaches_the_kernel",
    "03-directory-not-synced": (
        DISK + "test_checkpoint.py::test_files_are_durable_before_the_checkpoint_has_its_name"
    ),
    "04-new-directory-not-synced": POWER + "test_a_run_that_was_made_is_there[mine/first]",
    "05-made-run-not-synced": POWER + "test_a_run_that_was_made_is_there[None]",
    "06-sync-after-rename": (
        DISK + "test_files.py::test_bytes_are_durable_before_they_get_their_name"
    ),
    "07-written-in-place": (
        DISK + "test_checkpoint.py::"
        "test_killed_at_any_operation_the_old_or_the_new_is_there[cases0]"
    ),
    "08-journal-not-synced": (
        DISK + "test_journal.py::test_a_synced_journal_is_on_the_disk_with_its_name"
    ),
    "09-journal-name-not-synced": (
        DISK + "test_journal.py::test_a_synced_journal_is_on_the_disk_with_its_name"
    ),
    "10-outcome-not-durable": (
        "tests/tolaria/resume/test_replay.py::"
        "test_what_time_or_chance_decided_is_durable_before_the_next_step[late]"
    ),
    "11-undone-out-of-order": POWER + "test_a_future_that_was_undone_stays_so",
    "12-half-written": DISK + "test_files.py::test_half_of_the_bytes_are_no_success",
    "13-digest-ignored": (
        DISK + "test_checkpoint_damage.py::"
        "test_every_damage_is_found_and_the_previous_one_is_used[300]"
    ),
    "14-memory-order-lost": DISK + "test_tree.py::test_memory_order_survives",
    "15-fsync-tried-again": (
        DISK + "test_writer.py::test_what_the_disk_refuses_is_told_by_the_next_call[False]"
    ),
    "16-disk-error-swallowed": (
        DISK + "test_writer.py::test_what_the_disk_refuses_is_told_by_the_next_call[True]"
    ),
    "17-ordered-by-time": (
        "tests/reliability/test_clocks.py::test_files_of_another_time_are_gone_on_from[-10]"
    ),
    "18-schedule-left-out": (
        ROLLBACK + "test_state.py::"
        "test_the_next_hundred_steps_are_those_that_followed_the_first_time[sgd]"
    ),
    "19-zero-gradients": (
        ROLLBACK + "test_state.py::test_restoring_is_bit_exact_in_place_and_can_be_repeated[adam]"
    ),
    "20-python-stream-forgotten": (
        ROLLBACK + "test_state.py::"
        "test_the_next_hundred_steps_are_those_that_followed_the_first_time[sgd]"
    ),
    "21-numpy-stream-forgotten": (
        ROLLBACK + "test_state.py::"
        "test_the_next_hundred_steps_are_those_that_followed_the_first_time[sgd]"
    ),
    "22-snapshot-aliased": ROLLBACK + "test_state.py::test_nothing_live_is_ever_the_state_itself",
    "23-rates-aliased": (
        ROLLBACK + "test_state.py::test_a_rate_that_is_a_tensor_comes_back_in_place"
    ),
    "24-culled-state-leaked": (
        "tests/tolaria/rates/test_controller.py::"
        "test_going_back_to_a_mark_undoes_groups_state_and_schedulers"
    ),
    "25-buffers-forgotten": (
        ROLLBACK + "test_state.py::test_restoring_is_bit_exact_in_place_and_can_be_repeated[sgd]"
    ),
    "26-blueprint-fault-untold": (
        "tests/tolaria/test_seed_faults.py::test_one_event_says_why_a_seed_went"
    ),
    "27-not-finite-let-through": (
        "tests/kasmina/slots/test_wall.py::test_the_unshielded_wall_finds_what_it_can"
    ),
    "28-dropout-moves-the-run": (
        "tests/kasmina/slots/test_shield.py::test_a_shielded_body_has_a_stream_of_its_own"
    ),
    "29-late-decision-applied": "tests/tamiyo/test_controller.py::test_late",
    "30-policy-fault-uncounted": (
        "tests/tolaria/boundary/test_boundary.py::"
        "test_three_faults_in_a_row_open_the_breaker_for_ten_boundaries"
    ),
    "31-breaker-stays-open": (
        "tests/tolaria/boundary/test_breakers.py::"
        "test_three_failures_in_a_row_open_it_and_each_change_is_told_once"
    ),
    "32-torn-record-kept": DISK + "test_journal.py::test_every_torn_tail_is_left_out_and_cut_off",
    "33-lock-not-taken": DISK + "test_run.py::test_exactly_one_of_two_processes_wins",
    "34-lock-outlives-a-kill": DISK + "test_run.py::test_a_killed_holder_frees_the_run[fork]",
    "35-codec-error-escapes": CODEC + "test_refused[not UTF-8]",
    "36-size-uncapped": CODEC + "test_an_oversize_message_is_refused_unread",
    "37-message-crc-ignored": CODEC + "test_refused[flipped bit]",
    "38-version-unchecked": (
        DISK + "test_checkpoint_damage.py::test_a_manifest_of_another_format_is_refused_by_number"
    ),
    "39-record-shown-too-early": (
        "tests/oona/outbox/test_ring.py::test_a_kill_at_any_line_leaves_the_old_state_or_the_new"
    ),
    "40-dropped-counts-as-delivered": (
        "tests/oona/outbox/test_ring.py::test_one_damaged_byte_costs_at_most_its_own_record"
    ),
    "41-faults-among-metrics": (
        "tests/oona/test_bus.py::test_metrics_are_dropped_before_anything_else"
    ),
    "42-illegal-edge": "tests/leyline/test_lifecycle.py::test_a_fossil_is_permanent",
    "43-link-followed": (
        DISK + "test_checkpoint_damage.py::test_a_file_of_another_kind_or_step_is_found[state.json]"
    ),
    "44-link-written-through": DISK + "test_seed_records.py::test_a_link_is_not_followed",
    "45-foreign-file-listed": (
        DISK + "test_checkpoint_damage.py::"
        "test_a_manifest_that_points_elsewhere_is_refused[../../secret]"
    ),
    "46-bad-batch-stays": (
        ROLLBACK + "test_rollback_runs.py::"
        "test_a_guarded_step_is_undone_and_its_batch_skipped[adamw]"
    ),
}
"""The test that must fail, by the name of the patch."""
