//! TCP tracking against a second opinion that shares no code with it.
#![allow(missing_docs)]

mod tracker;

#[test]
fn agrees_with_the_paper_about_random_connections() {
    let mut table = tracker::table();
    let mut judged = 0;
    for seed in 0..30_000 {
        let mut random = seed << 32;
        // SplitMix64.
        let mut dice = |below: u32| {
            random = u64::wrapping_add(random, 0x9e37_79b9_7f4a_7c15);
            let mut z = random;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ z >> 31) % u64::from(below)) as u32
        };
        judged += tracker::agree(&mut table, 40, &mut dice);
    }
    assert!(judged > 400_000, "most of these connections live long: {judged}");
}
