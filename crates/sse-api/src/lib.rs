//! sse-api
