//! Runs a world through stateright's checker and says what came of it.

use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use super::configurations::{Broken, Sound, that_shows};
use super::flaws::Flaw;
use super::properties::DONE;
use super::world::World;

/// A flaw shows within a small part of this (the slowest within 0.2 million); beyond it, it is not caught.
const STATES_TO_SHOW_A_FLAW: usize = 2_000_000;

/// All states of the world are visited, every property holds in each, and the end is reached.
/// `Err` tells what does not, with the shortest way there.
pub fn holds(run: &Sound, threads: usize) -> Result<(), String> {
    let begun = Instant::now();
    let checker = run.world.clone().checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    println!(
        "{}: {} states, {} generated, depth {}, {:.1} s",
        run.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64(),
    );
    let discoveries = checker.discoveries();
    let always = |name: &str| {
        let is_it = |property: &stateright::Property<World>| property.name == name;
        run.world.properties().iter().any(|p| is_it(p) && p.expectation == Expectation::Always)
    };
    if let Some((property, path)) = discoveries.iter().find(|(name, _)| always(name)) {
        let steps = path.clone().into_actions();
        return Err(format!("{}: broken after {} steps: {property}\n{steps:#?}", run.name, steps.len()));
    }
    if !discoveries.contains_key(DONE) {
        return Err(format!("{}: never reached: {DONE}", run.name));
    }
    if checker.unique_state_count() != run.states {
        let (found, expected) = (checker.unique_state_count(), run.states);
        return Err(format!("{}: {found} states, not {expected}: is it another model now?", run.name));
    }
    Ok(())
}

/// The flaw breaks the property that it must break.
pub fn is_caught(flaw: Flaw) -> Result<(), String> {
    let Broken { property, world } = that_shows(flaw);
    let begun = Instant::now();
    // One thread: then the first counterexample is a shortest one.
    let checker = world
        .checker()
        .finish_when(HasDiscoveries::AnyOf([property].into()))
        .target_state_count(STATES_TO_SHOW_A_FLAW)
        .spawn_bfs()
        .join();
    let Some(path) = checker.discoveries().remove(property) else {
        return Err(format!("{flaw:?} goes unnoticed; it must break: {property}"));
    };
    let steps = path.into_actions();
    println!(
        "{flaw:?}: broken after {} steps: {property} ({} states, {:.1} s)",
        steps.len(),
        checker.unique_state_count(),
        begun.elapsed().as_secs_f64(),
    );
    if std::env::var_os("TICKMINT_MODEL_TRACE").is_some() {
        println!("{steps:#?}");
    }
    Ok(())
}
