//! The console in real Chromium, on a real control plane: every page, every form, every refusal, by keyboard and by mouse,
//! in both themes and at a phone's width.

mod forms;
mod guard;
mod harness;
mod keyboard;
mod lines;
mod lists;
mod live;
mod oidc;
mod pages;
mod proposals;
mod session;
