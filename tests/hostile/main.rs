//! Hostile peers against the real server: strangers, and builders that know the password and lie. After
//! each story no byte has changed outside of the liar's own attempts, no file is there that should not
//! be, another builder's half-finished delivery ends as if nothing had happened, and an honest builder
//! gets work and sees it published.
//!
//! `cargo nextest run --status-level pass -E 'binary(hostile)'` prints the list. A new story is one function
//! and a line below. Connections are in memory and the clock is tokio's, paused; ten thousand real
//! connections are in `processes/flood.rs`.
#![expect(clippy::indexing_slicing, reason = "tests fail by panicking")]

mod attempts;
mod floods;
mod frames;
mod names;
mod scene;
mod strangers;
mod strings;

type Result = anyhow::Result<()>;

/// Each story becomes a test of its own.
macro_rules! stories {
    ($($module:ident { $($story:ident)* })*) => {
        $(mod $module {
            $(
                #[tokio::test(start_paused = true)]
                async fn $story() -> crate::Result {
                    let mut scene = crate::scene::Scene::begin().await?;
                    super::super::$module::$story(&mut scene).await?;
                    scene.end().await
                }
            )*
        })*
    };
}

mod story {
    stories! {
        names {
            traversal_absolute_and_device_names
            control_and_bidi_characters
            reserved_and_unknown_kinds
            too_long_and_not_even_text
            hostile_names_of_builders_and_targets
        }
        attempts {
            never_given_ids
            another_builders_attempt
            an_attempt_of_an_earlier_run
            replayed_deliveries
            replayed_uploads_and_holds
            wrong_digests
            results_for_a_cancelled_attempt
            two_sessions_with_one_name
            a_hoard_of_attempts
        }
        frames {
            reordered
            duplicated
            oversized_frames
            oversized_lists
            lengths_that_lie
            oversized_registrations
            garbage_after_the_handshake
            cut_in_the_middle
        }
        floods {
            log_without_a_window
            log_with_a_window
            heartbeats_whose_answers_nobody_reads
            messages_that_are_read
            tiny_frames
            take_and_give_back
            a_peer_that_never_reads
        }
        strangers {
            slow_loris
            garbage_before_the_handshake
            a_crowd_that_says_nothing
            guesses
            hello_and_then_nothing
        }
        strings {
            escapes_and_markup_in_every_text
            markup_in_file_names
            texts_without_end
        }
    }
}
