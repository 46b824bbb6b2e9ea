//! What every way to follow a channel must do, run over each of them: a WebSocket, one whose request
//! makes the subscription, server-sent events, streams as the second request on their connection,
//! and reads that wait.
//!
//! The scenarios are written once, in terms of [`Transport`]. Each is a test for each transport; one
//! that a transport cannot express is ignored there, with the reason.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

mod resuming;
mod scenarios;
mod scope;
mod support;

/// Makes each scenario a test of the transport.
macro_rules! conformance {
    ($transport:ty: $($(#[$attribute:meta])* $module:ident::$scenario:ident,)*) => {
        $(
            $(#[$attribute])*
            #[tokio::test]
            async fn $scenario() {
                crate::$module::$scenario::<$transport>().await;
            }
        )*
    };
}

/// The scenarios of the transports on which the server speaks first.
macro_rules! conformance_of_streams {
    ($name:ident: $transport:ty) => {
        mod $name {
            conformance! { $transport:
                scenarios::the_first_contact_begins_with_a_snapshot,
                scenarios::a_publish_arrives_and_the_hash_is_right,
                scenarios::an_unset_key_is_gone,
                scenarios::what_happens_while_a_client_does_not_read_is_merged,
                scenarios::a_rollback_is_a_new_and_higher_revision,
                scenarios::values_of_every_kind_arrive_as_they_are,
                scenarios::a_large_channel_arrives_whole,
                scenarios::the_signature_is_the_control_planes,
                scenarios::a_burst_of_publishes_leads_to_the_last,
                scenarios::hints_say_that_there_is_something_to_read,
                scenarios::bookmarks_come_with_every_heartbeat,
                scenarios::deltas_carry_only_what_changed,
                resuming::a_cursor_at_the_head_resumes_unchanged,
                resuming::a_cursor_behind_the_head_resumes_with_what_changed,
                resuming::a_cursor_of_another_epoch_begins_anew,
                resuming::a_cursor_older_than_the_kept_deletions_begins_anew,
                resuming::a_cursor_whose_delta_would_be_larger_begins_anew,
                resuming::a_cursor_leads_on_after_a_restart,
                resuming::a_filtered_cursor_leads_on,
                scope::a_filter_shows_matching_keys_and_nothing_else,
                scope::a_filtered_client_moves_past_what_it_does_not_see,
                scope::a_wide_layer_reaches_the_channels_it_changes_and_no_other,
                scope::a_tenant_sees_nothing_of_another,
                scope::a_channel_made_while_the_server_runs_can_be_followed,
                scope::clients_on_every_shard_are_served,
            }
        }
    };
}

conformance_of_streams!(websocket: freshet_e2e::transport::WebSocket<false>);
conformance_of_streams!(websocket_behind_a_read: freshet_e2e::transport::WebSocket<true>);
conformance_of_streams!(websocket_by_request: freshet_e2e::transport::WebSocket<false, true>);
conformance_of_streams!(events: freshet_e2e::transport::Sse<false>);
conformance_of_streams!(events_behind_a_read: freshet_e2e::transport::Sse<true>);

mod reads_that_wait {
    conformance! { freshet_e2e::transport::LongPoll:
        scenarios::the_first_contact_begins_with_a_snapshot,
        scenarios::a_publish_arrives_and_the_hash_is_right,
        scenarios::an_unset_key_is_gone,
        scenarios::what_happens_while_a_client_does_not_read_is_merged,
        scenarios::a_rollback_is_a_new_and_higher_revision,
        scenarios::values_of_every_kind_arrive_as_they_are,
        scenarios::a_large_channel_arrives_whole,
        scenarios::the_signature_is_the_control_planes,
        scenarios::a_burst_of_publishes_leads_to_the_last,
        #[ignore = "a read is what a hint asks for"]
        scenarios::hints_say_that_there_is_something_to_read,
        #[ignore = "a read that waits is silent until it is answered"]
        scenarios::bookmarks_come_with_every_heartbeat,
        #[ignore = "a read answers the whole channel"]
        scenarios::deltas_carry_only_what_changed,
        resuming::a_cursor_at_the_head_resumes_unchanged,
        resuming::a_cursor_behind_the_head_resumes_with_what_changed,
        resuming::a_cursor_of_another_epoch_begins_anew,
        resuming::a_cursor_older_than_the_kept_deletions_begins_anew,
        resuming::a_cursor_whose_delta_would_be_larger_begins_anew,
        resuming::a_cursor_leads_on_after_a_restart,
        resuming::a_filtered_cursor_leads_on,
        scope::a_filter_shows_matching_keys_and_nothing_else,
        #[ignore = "a read that waits is silent until it is answered"]
        scope::a_filtered_client_moves_past_what_it_does_not_see,
        scope::a_wide_layer_reaches_the_channels_it_changes_and_no_other,
        scope::a_tenant_sees_nothing_of_another,
        scope::a_channel_made_while_the_server_runs_can_be_followed,
        scope::clients_on_every_shard_are_served,
    }
}
