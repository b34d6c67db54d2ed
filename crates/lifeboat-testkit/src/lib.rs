//! What tests need and the product does not: clocks and randomness under control, sources and sinks in memory, a store
//! that fails on purpose, damage for a store folder, and the suites that every implementation of a contract must pass.
//!
//! Never part of the product; nothing outside tests and benches depends on it.

pub mod conformance;
pub mod damage;
pub mod env;
pub mod faulty;
pub mod moto;
pub mod pages;
pub mod postgres;
pub mod proxy;
pub mod s3;
pub mod servers;
pub mod turns;
