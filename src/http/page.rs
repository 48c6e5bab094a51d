//! The page: one file, embedded, without any request to elsewhere.

use std::sync::LazyLock;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderValue;
use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use sha2::{Digest, Sha256};

use super::guard::error;
use super::{State, base64};

const PAGE: &str = include_str!("page.html");

/// Allows the script and the style of the page, by their hashes, and to ask its own server.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash_of("script"),
        hash_of("style"),
    );
    HeaderValue::from_str(&policy).expect("it is ASCII")
});

pub(super) fn policy() -> HeaderValue {
    POLICY.clone()
}

#[get("/")]
pub(super) async fn page(state: Data<State>) -> HttpResponse {
    if !state.serves {
        return error(StatusCode::NOT_FOUND, "this daemon shows no page, as `roles` does not have `serve`: ask one that has it");
    }
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(PAGE)
}

fn hash_of(element: &str) -> String {
    format!("sha256-{}", base64::encode(&Sha256::digest(content_of(element))))
}

fn content_of(element: &str) -> &'static str {
    let (_, behind) = PAGE.split_once(&format!("<{element}>")).expect("the page has one of each");
    behind.split_once(&format!("</{element}>")).expect("it is closed").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_but_its_own_server() {
        for outside in ["http://", "https://", "//cdn", "@import", " src=", " style=\"", " onclick"] {
            assert!(!PAGE.replace("http://www.w3.org/2000/svg", "").contains(outside), "{outside}");
        }
        assert_eq!((PAGE.matches("<script").count(), PAGE.matches("<style").count()), (1, 1));
    }

    #[test]
    fn the_policy_names_the_hashes_of_what_is_in_the_page() {
        let policy = policy();
        let policy = policy.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
