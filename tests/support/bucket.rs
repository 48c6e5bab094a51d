//! A bucket on a server of the tests, by the owner's own client.

use super::servers::Server;

/// The name of the bucket.
pub(crate) const BUCKET: &str = "lake";

/// A client of the server with all rights, its bucket made.
pub(crate) async fn owner(server: &Server) -> aws_sdk_s3::Client {
    let credentials = aws_sdk_s3::config::Credentials::new(Server::ACCESS_KEY, Server::SECRET_KEY, None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .endpoint_url(server.endpoint())
        .region(aws_sdk_s3::config::Region::new(Server::REGION))
        .credentials_provider(credentials)
        .force_path_style(true)
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    client.create_bucket().bucket(BUCKET).send().await.unwrap();
    client
}
