//! One builder for several targets.

use std::fs;

use moji_tests::support::processes::{Farm, outcome_of, tiny, wait_until};
use moji_tests::support::repository::wait_for_packages;

#[test]
fn one_client_serves_two_targets_with_two_configs_and_a_broken_one_stops_neither() {
    let mut farm = Farm::start(&[]);
    farm.write_config("other");
    let other = farm.path("configs/other.cfg");
    let text = fs::read_to_string(&other).unwrap();
    fs::write(&other, text.replace(".t3", ".other")).unwrap();
    let broken = farm.path("configs/broken.cfg");
    fs::write(&broken, "config_opts[\n").unwrap();
    let there = format!("there={}", other.display());
    let broken = format!("broken={}", broken.display());
    farm.start_client("b1", &["--target", &broken, "--target", &there]);

    let targets = ["broken", "here", "there"];
    let names = ["alpha", "beta", "gamma"];
    let srpms = farm.tiny_srpms(&names.map(|name| (name, "true")));
    for (target, srpm) in targets.iter().zip(&srpms) {
        fs::create_dir(farm.source(target)).unwrap();
        fs::rename(srpm, farm.source(target).join(srpm.file_name().unwrap())).unwrap();
        // In this order, so that the broken one had every chance to be in the way.
        let handed = format!("{target}/{}", srpm.file_name().unwrap().to_string_lossy());
        wait_until(&format!("{handed} is given out"), || {
            farm.hand_outs().iter().any(|(srpm, _)| *srpm == handed)
        });
    }
    farm.wait_finished(&format!("here/{}", tiny("beta")));
    farm.wait_finished(&format!("there/{}", tiny("gamma")));
    let packages = |name: &str, dist: &str| {
        ["noarch", "src"].map(|arch| format!("{name}-1-1/{name}-1-1.{dist}.{arch}.rpm"))
    };
    wait_for_packages(&farm.repo("here"), &packages("beta", "t3"));
    wait_for_packages(&farm.repo("there"), &packages("gamma", "other"));
    let alpha = format!("broken/{}", tiny("alpha"));
    assert_eq!(farm.where_is(&alpha), ["SOURCE"], "it waits for a builder whose config works");
    assert_eq!(farm.hand_outs().iter().filter(|(srpm, _)| *srpm == alpha).count(), 1);
}

#[test]
fn a_target_whose_config_is_missing_is_named() {
    let farm = Farm::start(&[]);
    let gone = format!("there={}", farm.path("configs/gone.cfg").display());
    let (code, said) = outcome_of(farm.client_command("b1", &["--target", &gone]));
    assert!(code == 3 && said.contains("configs/gone.cfg cannot be read"), "{code}: {said}");
    let (code, said) = outcome_of(farm.client_command("b1", &["--target", "here=x"]));
    assert!(code == 2 && said.contains("the target here is given twice"), "{code}: {said}");
}
