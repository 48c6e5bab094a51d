//! What holds for every request: only GET, only with the token, without one only by a name of this machine,
//! and headers that let a browser do nothing but show the page.

use std::net::IpAddr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{State, base64, page};
use crate::config::Secret;

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// An answer that says what is wrong.
pub(super) fn error(status: StatusCode, text: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": text }))
}

/// Stands before every route.
pub(super) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let state = request.app_data::<Data<State>>();
    let (token, local) = (state.and_then(|state| state.token.clone()), state.and_then(|state| state.local));
    let stranger = local.and_then(|listens| stranger(request.headers(), listens));
    let refusal = if request.method() != Method::GET {
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered");
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        Some(answer)
    } else if request.path() != "/livez" && !token.is_none_or(|token| carries(request.headers(), &token)) {
        let text =
            "the token is missing or wrong: send `Authorization: Bearer TOKEN`, the one of `http.token_file` or `http.token_env`";
        let mut answer = error(StatusCode::UNAUTHORIZED, text);
        // Makes a browser ask; the user's name does not matter, the password is the token.
        let challenge = HeaderValue::from_static("Basic realm=\"tickmint (password: the token)\", charset=\"UTF-8\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Some(answer)
    } else {
        stranger.map(|host| {
            let text = format!(
                "this is not `{host}`: without a token only `localhost` and addresses of the loopback are answered for, lest a web \
                 page reads along under a name of its own; behind a proxy, set `http.token_file` or `http.token_env`"
            );
            error(StatusCode::FORBIDDEN, &text)
        })
    };
    let mut response = match refusal {
        Some(answer) => request.into_response(answer),
        None => next.call(request).await?.map_into_boxed_body(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, page::policy());
    Ok(response)
}

/// The host that was asked for, if that is no name of this machine: a page's own name, which its owner lets point
/// here, would make the browser take our answers for that page's. Who sends no host is no browser.
fn stranger(headers: &HeaderMap, listens: IpAddr) -> Option<String> {
    let host = headers.get(header::HOST)?;
    let Ok(text) = host.to_str() else { return Some("?".into()) };
    let name = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => text.split_once(':').map_or(text, |(name, _)| name),
    };
    let is_address = |address: IpAddr| address.is_loopback() || address == listens;
    let is_ours = name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_address);
    (!is_ours).then(|| text.to_string())
}

/// Whether the request carries the token, as a bearer or as a password.
fn carries(headers: &HeaderMap, token: &Secret) -> bool {
    let Some((scheme, given)) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' ')) else {
        return false;
    };
    let given = given.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return same(given.as_bytes(), token);
    }
    let password = || {
        let pair = base64::decode(given)?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        Some(pair[colon + 1..].to_vec())
    };
    scheme.eq_ignore_ascii_case("basic") && password().is_some_and(|password| same(&password, token))
}

/// Takes as long for a nearly right token as for a wrong one: what is compared are hashes, to the end.
fn same(given: &[u8], token: &Secret) -> bool {
    let (given, token) = (Sha256::digest(given), Sha256::digest(token.reveal().as_bytes()));
    let difference = given.iter().zip(token.iter()).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(authorization: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        carries(&headers, &Secret::new("s3cret"))
    }

    #[test]
    fn only_names_of_this_machine_are_answered_for() {
        let refused = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
            stranger(&headers, "127.0.0.1".parse().unwrap()).is_some()
        };
        for ours in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "127.0.0.2:8080", "[::1]", "[::1]:8080"] {
            assert!(!refused(ours), "{ours}");
        }
        let others =
            ["", ":8080", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"];
        for other in others.into_iter().chain(["[::2]:8080", "[::1", "localhost@evil.example", "\u{e9}vil.example", "0.0.0.0"]) {
            assert!(refused(other), "{other}");
        }
        assert!(stranger(&HeaderMap::new(), "127.0.0.1".parse().unwrap()).is_none());
    }

    #[test]
    fn the_token_is_taken_as_a_bearer_or_as_a_password_and_nothing_else() {
        assert!(accepted("Bearer s3cret"));
        assert!(accepted("bearer  s3cret"));
        assert!(accepted(&format!("Basic {}", base64::encode(b"anyone:s3cret"))));
        let wrong =
            ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "s3cret", "Digest s3cret", "Basic s3cret", "Basic !"];
        for wrong in wrong.iter().copied().chain([format!("Basic {}", base64::encode(b"s3cret")).as_str()]) {
            assert!(!accepted(wrong), "{wrong}");
        }
        assert!(!carries(&HeaderMap::new(), &Secret::new("s3cret")));
    }
}
