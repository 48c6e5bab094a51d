//! What people see, through the real program: messages, exit codes, the answers over HTTP, the page
//! in a browser, the demo in a terminal.

mod commands;
mod config;
mod demo;
mod desk;
mod page;
mod refusals;
mod signals;
mod states;
