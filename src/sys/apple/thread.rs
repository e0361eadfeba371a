//! Classes of threads.

/// The class of what somebody waits for, whatever the class of the thread that made this one.
pub fn take_short_turns() {
    // SAFETY: a wish about the calling thread.
    unsafe { libc::pthread_set_qos_class_self_np(libc::qos_class_t::QOS_CLASS_USER_INITIATED, 0) };
}
