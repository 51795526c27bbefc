//! The interrupts of a network card's queues, as `/proc` and `/sys` have them.

use std::{fs, path::Path};

use serde::Serialize;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interrupt {
    /// The kernel's number.
    pub number: u32,
    /// Of the card's queue that it is for, as far as its name tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// Where it is answered, as in `2,4-7`.
    pub cpus: String,
}

/// Those of an interface, by number: none of one that is no card's. `root` is where `/proc` and `/sys` are.
pub fn of(root: &Path, interface: &str) -> Vec<Interrupt> {
    let device = root.join(format!("sys/class/net/{interface}/device"));
    let listed = fs::read_dir(device.join("msi_irqs")).into_iter().flatten().flatten();
    let own: Vec<u32> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // A virtio device's are its bus's, and called after it.
    let device = fs::read_link(&device).ok();
    let device = device.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or("");
    let table = fs::read_to_string(root.join("proc/interrupts")).unwrap_or_default();
    let each = table.lines().filter_map(|line| {
        let (number, rest) = line.trim_start().split_once(':')?;
        let (number, name) = (number.parse().ok()?, rest.split_whitespace().last()?);
        let named = |of: &str| !of.is_empty() && name.split(['-', '.', '@', ':']).any(|part| part == of);
        let is_input = !name.contains("output") && !name.contains("config");
        let ours = own.contains(&number) || named(interface) || named(device);
        (ours && is_input).then(|| Interrupt { number, queue: queue(name), cpus: cpus(root, number) })
    });
    each.collect()
}

/// The number that such a name ends with: `eth0-TxRx-3`, `virtio0-input.3`, `mlx5_comp3@pci:0000:03:00.0`.
fn queue(name: &str) -> Option<u32> {
    let name = name.split('@').next()?;
    let begin = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    // Not the interface's own.
    let before = name[..begin].trim_end_matches(['-', '.']);
    (before.contains(['-', '.']) || before.ends_with("comp")).then(|| name[begin..].parse().ok())?
}

fn cpus(root: &Path, number: u32) -> String {
    let read = |what: &str| fs::read_to_string(root.join(format!("proc/irq/{number}/{what}"))).ok();
    let list = read("effective_affinity_list").filter(|list| !list.trim().is_empty());
    list.or_else(|| read("smp_affinity_list")).unwrap_or_default().trim().to_owned()
}

/// The members of a list as the kernel writes it: `2,4-7`.
pub fn members(list: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_told_by_the_names_that_drivers_give() {
        for (name, number) in [
            ("eth0-TxRx-3", Some(3)),
            ("i40e-eth0-TxRx-12", Some(12)),
            ("eth0-Tx-Rx-0", Some(0)),
            ("virtio0-input.1", Some(1)),
            ("mlx5_comp7@pci:0000:03:00.0", Some(7)),
            ("mlx5_async0@pci:0000:03:00.0", None),
            ("eth0", None),
            ("i40e-0000:03:00.0:misc", None),
        ] {
            assert_eq!(queue(name), number, "{name}");
        }
    }

    #[test]
    fn interrupts_are_a_cards_by_its_list_its_name_or_its_devices_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/class/net/eth0/device/msi_irqs/45", "msix");
        write("sys/class/net/eth10/address", "");
        write(
            "proc/interrupts",
            "           CPU0       CPU1\n 44:  1  2  IR-PCI-MSIX 1-edge  eth0-TxRx-0\n 45:  0  0  IR-PCI-MSIX 2-edge  mlx5_comp1@pci:0\n \
             46:  0  0  IR-PCI-MSIX 3-edge  eth10-TxRx-0\n 47:  0 0 IR-PCI-MSIX 4-edge  virtio3-input.2\n\
             48:  0 0 IR-PCI-MSIX 4-edge  virtio3-output.2\nERR: 0\n",
        );
        write("proc/irq/44/effective_affinity_list", "1\n");
        write("proc/irq/45/effective_affinity_list", "\n");
        write("proc/irq/45/smp_affinity_list", "0-1\n");
        fs::create_dir_all(root.join("sys/class/net/ens3")).unwrap();
        std::os::unix::fs::symlink("../../../virtio3", root.join("sys/class/net/ens3/device")).unwrap();
        let told = |interface: &str| -> Vec<(u32, Option<u32>, String)> {
            of(root, interface).into_iter().map(|one| (one.number, one.queue, one.cpus)).collect()
        };
        assert_eq!(told("eth0"), [(44, Some(0), "1".into()), (45, Some(1), "0-1".into())]);
        assert_eq!(told("ens3"), [(47, Some(2), String::new())]);
        assert_eq!(told("cali0"), []);
        assert_eq!(members("2,4-6"), [2, 4, 5, 6]);
        assert!(members("").is_empty() && members("x").is_empty());
    }
}
