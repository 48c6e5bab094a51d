//! Brokers that let nobody in without a certificate, or without a password.

use super::rig::{A, Cluster, Servers};
use crate::support::kafka::{Options, PASSWORD, Security, certificates};
use crate::support::servers::or_skip;

#[test]
fn over_mutual_tls_all_arrives_and_a_certificate_of_another_authority_is_named() {
    is_let_in_again_after(
        Security::MutualTls,
        |cluster| {
            let other = cluster.path("other");
            certificates(&other).unwrap(); // openssl is there: it has made those of the brokers
            cluster.present(&other.join("client.pem"), &other.join("client.key"), PASSWORD);
        },
        "client.pem",
    );
}

#[test]
fn over_tls_with_a_password_all_arrives_and_a_wrong_one_is_named() {
    is_let_in_again_after(
        Security::SaslSsl,
        |cluster| cluster.present(&cluster.kafka.client_certificate(), &cluster.kafka.client_key(), "wrong"),
        "password_file",
    );
}

/// A daemon that has forwarded something is killed, so that its spool holds what no broker has; then it is refused by the
/// brokers, and says which option is to blame; then it is let in again.
fn is_let_in_again_after(security: Security, spoil: impl Fn(&Cluster), blamed: &str) {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let exchange = ["--simulate", "20", "--rate", "500"];
    let kafka = Options { security, ..Options::default() };
    let started = Cluster::start(Servers { kafka, ..Servers::default() }, &exchange, &symbols);
    let Some(mut cluster) = or_skip(started) else { return };
    let forwarded = |cluster: &Cluster| cluster.metric(A, "tickmint_forwarded_records_total") > Some(1000.0);
    let mut daemon = cluster.daemon(A);
    cluster.wait_for("trades are forwarded", || forwarded(&cluster));
    daemon.0.kill().unwrap();
    drop(daemon);

    spoil(&cluster);
    let said_before = cluster.log(A).len();
    let status = cluster.daemon(A).wait();
    let said = cluster.log(A).split_off(said_before);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("`[kafka]` cannot be used") && said.contains(blamed), "{said}");

    cluster.present(&cluster.kafka.client_certificate(), &cluster.kafka.client_key(), PASSWORD);
    let daemon = cluster.daemon(A);
    cluster.wait_for("it goes on", || forwarded(&cluster));
    cluster.ends_well(daemon);
}
