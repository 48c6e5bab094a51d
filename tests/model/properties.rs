//! What must hold in every state, and what must be reachable.

use stateright::Property;

use super::state::{Phase, State};
use super::world::World;

pub const CHAIN: &str =
    "slots abut and do not fork; nothing follows an end slot; a generation begins only after the end slot before it";
pub const OBJECTS: &str = "every object that a slot names exists";
pub const TWICE: &str = "no (session, seq) is archived twice";
pub const CLAIM: &str = "what slots claim as seen is archived";
pub const LOST: &str =
    "what the spool has deleted is archived; what a lost disk held is archived, visibly missing or declared lost";
pub const STUCK: &str = "where nothing more can happen, everything is archived (or its disk was lost)";
pub const SEALED: &str = "an hour declared complete does not change";
/// Reached in every sound run: without it the rest could hold because nothing ever happens.
pub const DONE: &str = "everything archived, spool empty";

/// All of them, as stateright wants them.
pub fn all() -> Vec<Property<World>> {
    vec![
        Property::always(CHAIN, |_, state: &State| is_one_chain(state)),
        Property::always(OBJECTS, |_, state: &State| state.store.named().is_subset(&state.store.objects)),
        Property::always(TWICE, |_, state: &State| state.store.archived().count() == state.store.archived_set().len()),
        Property::always(CLAIM, |world: &World, state: &State| {
            let accounted = state.store.archived_set().union(world.declared_lost(state));
            accounted.includes(world.claimed(&state.store))
        }),
        Property::always(LOST, |world: &World, state: &State| {
            let kept = state.spool.held.union(state.store.archived_set());
            state.spool.disk_lost || kept.includes(world.all_records())
        }),
        Property::always(STUCK, |world: &World, state: &State| !is_stuck(world, state)),
        Property::always(SEALED, |_, state: &State| state.sealed.is_none_or(|rows| rows == state.store.rows_of_hour_0())),
        Property::sometimes(DONE, |world: &World, state: &State| {
            state.store.archived_set() == world.all_records() && state.spool.held.is_empty()
        }),
    ]
}

/// Whoever follows the slots from generation 0 on meets every one of them.
fn is_one_chain(state: &State) -> bool {
    let slots = &state.store.slots;
    let mut met = 0;
    for generation in 0.. {
        let mut at = 0;
        loop {
            let Some(slot) = slots.get(&(generation, at)) else {
                return met == slots.len();
            };
            met += 1;
            let covers = (generation, at, slot.end());
            if slot.object().is_some_and(|object| object.place() != covers) {
                return false;
            }
            match slot.end() {
                Some(end) => at = end + 1,
                None => break,
            }
        }
    }
    unreachable!("the chain ends where a slot is missing")
}

/// Nothing is under way, nothing can happen, and yet not everything is archived.
fn is_stuck(world: &World, state: &State) -> bool {
    let may_go_on = state.spool.disk_lost
        || !state.network.is_empty()
        || state.writers.iter().any(|writer| writer.phase == Phase::Down)
        || state.store.archived_set() == world.all_records();
    if may_go_on {
        return false;
    }
    let mut actions = Vec::new();
    world.possible_actions(state, &mut actions);
    actions.is_empty()
}
