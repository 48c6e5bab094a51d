//! Many failures at random, and nothing is lost: because the sender sends again.

use std::collections::BTreeMap;

use super::*;

const RECORDS: u64 = 2000;

/// Puts records into a store that outlives it, and fails in every way an actor can.
struct Fragile {
    vitals: Arc<Vitals>,
    store: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl Actor for Fragile {
    type Context = Context<Self>;
}

impl Supervised for Fragile {}

impl Child for Fragile {}

#[derive(Message)]
#[rtype(result = "()")]
struct Put(u64);

impl Handler<Put> for Fragile {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Put(record): Put, ctx: &mut Context<Self>) -> Self::Result {
        let dice: f64 = rand::random();
        match dice {
            ..0.02 => panic!("before the put"),
            0.02..0.04 => {
                self.vitals.fail("will not put");
                ctx.terminate();
            }
            _ => {}
        }
        let store = self.store.clone();
        AtomicResponse::new(Box::pin(fut::wrap_future(async move {
            if dice > 0.995 {
                std::future::pending::<()>().await;
            }
            if dice < 0.04 {
                return;
            }
            *store.lock().unwrap().entry(record).or_default() += 1;
            assert!(dice > 0.06, "between put and answer");
        })))
    }
}

/// Sends all records, again until answered or just once; returns the store and the restarts.
async fn send_all(again: bool) -> (BTreeMap<u64, usize>, u32) {
    tokio::time::pause();
    let intensity = Intensity { max_restarts: usize::MAX, period: seconds(1) };
    let root = Root::start(Policy { intensity, ..policy() });
    let store = Arc::<Mutex<BTreeMap<_, _>>>::default();
    let for_actor = store.clone();
    let build = move |_: &mut Context<Fragile>, vitals| Fragile { vitals, store: for_actor };
    let fragile = root.top.spawn(ChildSpec::permanent("fragile"), System::current().arbiter(), build).unwrap();
    for record in 0..RECORDS {
        while fragile.send(Put(record)).await.is_err() && again {}
    }
    let restarts = root.restarts("fragile");
    assert_eq!(root.shutdown().await, []);
    let store = store.lock().unwrap().clone();
    (store, restarts)
}

#[actix::test]
async fn nothing_is_lost_when_the_sender_sends_again() {
    let (store, restarts) = send_all(true).await;
    assert!(restarts > 50, "{restarts} restarts prove little");
    assert!(store.keys().copied().eq(0..RECORDS));
    assert!(store.values().any(|puts| *puts > 1), "an unanswered put was put again, under the same key");
}

#[actix::test]
async fn what_is_sent_once_is_lost() {
    let (store, _) = send_all(false).await;
    assert!((store.len() as u64) < RECORDS, "else the test above proves nothing");
}
