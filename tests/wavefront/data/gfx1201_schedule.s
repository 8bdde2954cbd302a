	.amdgcn_target "amdgcn-amd-amdhsa--gfx1201"
	.text
	.type	schedule_kernel,@function
schedule_kernel:
	.file	1 "schedule_kernel.py"
	.loc	1 8 0
	s_load_b256 s[8:15], s[0:1], 0x0
	.loc	1 18 0
	v_and_b32_e32 v1, 3, v0
	s_mov_b32 s19, 0x31027000
	s_mov_b32 s18, 0x7ffffffe
	.loc	1 19 0
	s_wait_kmcnt 0x0
	s_delay_alu instid0(VALU_DEP_1)
	v_cmp_gt_i32_e32 vcc_lo, s15, v1
	.loc	1 20 0
	v_lshlrev_b32_e32 v2, 2, v1
	s_and_b32 s17, s9, 0xffff
	s_mov_b32 s16, s8
	.loc	1 31 0
	s_bfe_u32 s9, ttmp8, 0x50019
	.loc	1 26 0
	s_lshl_b32 s8, ttmp9, 8
	.loc	1 21 0
	v_add_nc_u32_e32 v3, 4, v2
	.loc	1 35 0
	s_and_b32 s13, s13, 0xffff
	s_delay_alu instid0(VALU_DEP_1)
	.loc	1 21 0
	v_cndmask_b32_e32 v3, 0x80000000, v3, vcc_lo
	.loc	1 20 0
	v_cndmask_b32_e32 v2, 0x80000000, v2, vcc_lo
	.file	2 "standard.py"
	.loc	2 343 0
	v_cmp_ne_u32_e64 s1, 0, v1
	.loc	1 20 0
	s_clause 0x1
	buffer_load_b32 v2, v2, s[16:19], null offen
	buffer_load_b32 v3, v3, s[16:19], null offen
	.loc	1 23 0
	s_wait_loadcnt 0x0
	v_sub_nc_u32_e32 v2, v3, v2
	s_delay_alu instid0(VALU_DEP_1) | instskip(NEXT) | instid1(VALU_DEP_1)
	.loc	1 23 0
	v_ashrrev_i32_e32 v3, 31, v2
	v_lshrrev_b32_e32 v3, 28, v3
	s_delay_alu instid0(VALU_DEP_1) | instskip(SKIP_1) | instid1(VALU_DEP_2)
	v_add_nc_u32_e32 v3, v2, v3
	.loc	1 23 0
	v_and_b32_e32 v2, 15, v2
	.loc	1 23 0
	v_ashrrev_i32_e32 v3, 4, v3
	s_delay_alu instid0(VALU_DEP_2) | instskip(NEXT) | instid1(VALU_DEP_1)
	.loc	1 23 0
	v_cmp_ne_u32_e64 s0, 0, v2
	.loc	1 23 0
	v_add_co_ci_u32_e64 v9, null, 0, v3, s0
	.loc	1 18 0
	v_and_b32_e32 v4, 31, v0
	s_delay_alu instid0(VALU_DEP_1) | instskip(SKIP_1) | instid1(VALU_DEP_2)
	.loc	2 343 0
	v_sub_nc_u32_e64 v5, v4, 1 clamp
	.loc	1 18 0
	v_lshl_or_b32 v10, s9, 5, v4
	.loc	2 343 0
	v_lshlrev_b32_e32 v5, 2, v5
	ds_bpermute_b32 v2, v5, v9
	v_lshlrev_b32_e32 v5, 2, v4
	s_delay_alu instid0(VALU_DEP_1) | instskip(SKIP_4) | instid1(VALU_DEP_3)
	v_add_nc_u32_e32 v6, -8, v5
	s_wait_dscnt 0x0
	v_cndmask_b32_e64 v2, 0, v2, s1
	v_cmp_gt_u32_e64 s1, 2, v4
	.loc	1 30 0
	v_bfe_i32 v4, v0, 2, 1
	.loc	2 343 0
	v_add_co_ci_u32_e64 v2, null, v2, v3, s0
	s_wait_alu depctr_va_sdst(0)
	s_delay_alu instid0(VALU_DEP_3)
	v_cndmask_b32_e64 v5, v6, v5, s1
	v_cmp_lt_u32_e64 s0, 1, v1
	.loc	1 30 0
	v_and_b32_e32 v4, 0x220, v4
	v_and_b32_e32 v6, 0x78, v10
	.loc	2 343 0
	ds_bpermute_b32 v3, v5, v2
	.loc	1 26 0
	v_lshrrev_b32_e32 v5, 2, v10
	.loc	1 30 0
	v_xad_u32 v11, v6, v4, 0
	s_delay_alu instid0(VALU_DEP_2) | instskip(NEXT) | instid1(VALU_DEP_1)
	.loc	1 26 0
	v_and_or_b32 v5, v5, 31, s8
	v_or_b32_e32 v4, 64, v5
	v_or_b32_e32 v6, 0x60, v5
	v_or_b32_e32 v7, 0xa0, v5
	v_or_b32_e32 v8, 0xc0, v5
	v_or_b32_e32 v12, 0xe0, v5
	.loc	2 343 0
	s_wait_dscnt 0x0
	s_wait_alu depctr_va_sdst(0)
	v_cndmask_b32_e64 v1, 0, v3, s0
	.loc	1 26 0
	v_or_b32_e32 v3, 32, v5
	s_delay_alu instid0(VALU_DEP_2) | instskip(SKIP_1) | instid1(VALU_DEP_2)
	.loc	2 343 0
	v_add_nc_u32_e32 v1, v2, v1
	.loc	1 26 0
	v_or_b32_e32 v2, 0x80, v5
	.loc	1 28 0
	v_cmp_le_i32_e64 s0, v1, v5
	s_delay_alu instid0(VALU_DEP_4)
	v_cmp_le_i32_e64 s1, v1, v3
	v_cmp_le_i32_e64 s2, v1, v4
	v_cmp_le_i32_e64 s3, v1, v6
	v_cmp_le_i32_e64 s4, v1, v2
	v_cmp_le_i32_e64 s5, v1, v7
	v_cmp_le_i32_e64 s6, v1, v8
	v_cmp_le_i32_e64 s7, v1, v12
	.loc	1 28 0
	s_and_b32 s0, vcc_lo, s0
	s_and_b32 s1, vcc_lo, s1
	s_and_b32 s2, vcc_lo, s2
	s_and_b32 s3, vcc_lo, s3
	s_and_b32 s4, vcc_lo, s4
	s_and_b32 s5, vcc_lo, s5
	s_and_b32 s6, vcc_lo, s6
	s_and_b32 vcc_lo, vcc_lo, s7
	.loc	1 29 0
	s_wait_alu depctr_sa_sdst(0)
	v_cndmask_b32_e64 v1, 0, 1, s0
	v_cndmask_b32_e64 v2, 0, 1, s1
	v_cndmask_b32_e64 v3, 0, 1, s2
	v_cndmask_b32_e64 v4, 0, 1, s3
	v_cndmask_b32_e64 v5, 0, 1, s4
	v_cndmask_b32_e64 v6, 0, 1, s5
	v_cndmask_b32_e64 v7, 0, 1, s6
	v_cndmask_b32_e64 v8, 0, 1, vcc_lo
	.loc	2 293 0
	v_mov_b32_dpp v1, v1 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v2, v2 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v3, v3 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v4, v4 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v5, v5 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v6, v6 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v7, v7 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v8, v8 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	.loc	2 263 0
	v_add_co_ci_u32_e64 v12, null, 0, v1, s0
	v_add_co_ci_u32_e64 v13, null, 0, v2, s1
	v_add_co_ci_u32_e64 v14, null, 0, v3, s2
	v_add_co_ci_u32_e64 v15, null, 0, v4, s3
	v_add_co_ci_u32_e64 v16, null, 0, v5, s4
	v_add_co_ci_u32_e64 v17, null, 0, v6, s5
	v_add_co_ci_u32_e64 v18, null, 0, v7, s6
	v_add_co_ci_u32_e64 v19, null, 0, v8, vcc_lo
	.loc	2 293 0
	v_mov_b32_dpp v12, v12 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v13, v13 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v14, v14 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v15, v15 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v16, v16 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v17, v17 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v18, v18 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v19, v19 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	.loc	2 263 0
	v_add_co_ci_u32_e64 v1, null, v12, v1, s0
	v_add_co_ci_u32_e64 v2, null, v13, v2, s1
	v_add_co_ci_u32_e64 v3, null, v14, v3, s2
	v_add_co_ci_u32_e64 v4, null, v15, v4, s3
	v_add_co_ci_u32_e64 v5, null, v16, v5, s4
	v_add_co_ci_u32_e64 v6, null, v17, v6, s5
	v_add_co_ci_u32_e64 v7, null, v18, v7, s6
	v_add_co_ci_u32_e64 v8, null, v19, v8, vcc_lo
	.loc	1 30 0
	ds_store_2addr_b64 v11, v[1:2], v[3:4] offset1:16
	ds_store_2addr_b64 v11, v[5:6], v[7:8] offset0:32 offset1:48
	.loc	1 31 0
	v_dual_cndmask_b32 v7, 0, v9 :: v_dual_lshlrev_b32 v12, 3, v0
	v_cndmask_b32_e64 v6, 0, v9, s6
	.loc	1 30 0
	v_lshrrev_b32_e32 v0, 2, v0
	.loc	1 31 0
	v_cndmask_b32_e64 v3, 0, v9, s3
	s_delay_alu instid0(VALU_DEP_4)
	.loc	2 293 0
	v_mov_b32_e32 v21, v7
	.loc	1 31 0
	v_cndmask_b32_e64 v2, 0, v9, s2
	.loc	2 293 0
	v_mov_b32_e32 v20, v6
	.loc	1 30 0
	v_lshl_or_b32 v0, s9, 7, v0
	.loc	1 31 0
	v_cndmask_b32_e64 v4, 0, v9, s4
	.loc	2 293 0
	v_mov_b32_dpp v21, v21 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	.loc	1 31 0
	v_cndmask_b32_e64 v5, 0, v9, s5
	.loc	2 293 0
	v_mov_b32_dpp v20, v20 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_dual_mov_b32 v17, v3 :: v_dual_mov_b32 v16, v2
	s_delay_alu instid0(VALU_DEP_4) | instskip(NEXT) | instid1(VALU_DEP_3)
	v_dual_mov_b32 v18, v4 :: v_dual_add_nc_u32 v7, v21, v7
	.loc	2 263 0
	v_add_nc_u32_e32 v6, v20, v6
	s_delay_alu instid0(VALU_DEP_3) | instskip(SKIP_1) | instid1(VALU_DEP_4)
	.loc	2 293 0
	v_mov_b32_dpp v17, v17 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_e32 v19, v5
	v_mov_b32_e32 v21, v7
	s_delay_alu instid0(VALU_DEP_4) | instskip(NEXT) | instid1(VALU_DEP_4)
	v_dual_mov_b32 v20, v6 :: v_dual_and_b32 v1, 0x78, v12
	.loc	2 263 0
	v_add_nc_u32_e32 v3, v17, v3
	.loc	2 293 0
	v_mov_b32_dpp v16, v16 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v18, v18 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	s_delay_alu instid0(VALU_DEP_4)
	.loc	1 30 0
	v_and_or_b32 v0, 0x184, v0, v1
	.loc	1 31 0
	v_cndmask_b32_e64 v1, 0, v9, s1
	.loc	2 293 0
	v_mov_b32_e32 v17, v3
	v_mov_b32_dpp v19, v19 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v20, v20 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	.loc	1 30 0
	v_add_nc_u32_e32 v8, 0, v0
	v_xad_u32 v12, v0, 32, 0
	.loc	1 31 0
	v_cndmask_b32_e64 v0, 0, v9, s0
	.loc	2 293 0
	v_mov_b32_e32 v15, v1
	v_mov_b32_dpp v17, v17 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v21, v21 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	s_delay_alu instid0(VALU_DEP_4) | instskip(NEXT) | instid1(VALU_DEP_4)
	v_dual_mov_b32 v9, v0 :: v_dual_add_nc_u32 v6, v6, v20
	v_mov_b32_dpp v15, v15 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	s_delay_alu instid0(VALU_DEP_4) | instskip(NEXT) | instid1(VALU_DEP_4)
	.loc	2 263 0
	v_add_nc_u32_e32 v3, v3, v17
	v_add_nc_u32_e32 v7, v7, v21
	s_delay_alu instid0(VALU_DEP_4) | instskip(NEXT) | instid1(VALU_DEP_1)
	.loc	2 293 0
	v_mov_b32_dpp v9, v9 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	.loc	2 263 0
	v_add_nc_u32_e32 v0, v9, v0
	s_delay_alu instid0(VALU_DEP_1) | instskip(NEXT) | instid1(VALU_DEP_1)
	.loc	2 293 0
	v_mov_b32_e32 v9, v0
	v_mov_b32_dpp v9, v9 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	s_delay_alu instid0(VALU_DEP_1)
	.loc	2 263 0
	v_add_nc_u32_e32 v0, v0, v9
	.loc	1 30 0
	s_wait_dscnt 0x0
	s_barrier_signal -1
	s_barrier_wait -1
	global_inv scope:SCOPE_SE
	ds_load_b32 v13, v8
	ds_load_b32 v14, v12 offset:512
	s_wait_dscnt 0x1
	v_cmp_gt_i32_e32 vcc_lo, s15, v13
	.loc	2 263 0
	v_add_nc_u32_e32 v1, v15, v1
	v_add_nc_u32_e32 v2, v16, v2
	v_add_nc_u32_e32 v5, v19, v5
	v_add_nc_u32_e32 v4, v18, v4
	.loc	1 30 0
	s_wait_dscnt 0x0
	v_cmp_gt_i32_e64 s0, s15, v14
	.loc	2 293 0
	v_dual_mov_b32 v15, v1 :: v_dual_mov_b32 v16, v2
	s_delay_alu instid0(VALU_DEP_3) | instskip(SKIP_1) | instid1(VALU_DEP_2)
	v_dual_mov_b32 v19, v5 :: v_dual_mov_b32 v18, v4
	.loc	1 35 0
	s_mov_b32 s15, s19
	.loc	2 293 0
	v_mov_b32_dpp v15, v15 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	s_delay_alu instid0(VALU_DEP_3) | instskip(NEXT) | instid1(VALU_DEP_3)
	v_mov_b32_dpp v16, v16 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v19, v19 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v18, v18 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	s_delay_alu instid0(VALU_DEP_4) | instskip(NEXT) | instid1(VALU_DEP_4)
	.loc	2 263 0
	v_add_nc_u32_e32 v1, v1, v15
	v_add_nc_u32_e32 v2, v2, v16
	s_delay_alu instid0(VALU_DEP_4) | instskip(NEXT) | instid1(VALU_DEP_4)
	v_add_nc_u32_e32 v5, v5, v19
	v_add_nc_u32_e32 v4, v4, v18
	.loc	1 31 0
	s_wait_loadcnt 0x0
	s_barrier_signal -1
	s_barrier_wait -1
	global_inv scope:SCOPE_SE
	ds_store_2addr_b64 v11, v[0:1], v[2:3] offset1:16
	ds_store_2addr_b64 v11, v[4:5], v[6:7] offset0:32 offset1:48
	s_wait_loadcnt_dscnt 0x0
	s_barrier_signal -1
	.loc	1 32 0
	v_lshlrev_b32_e32 v0, 2, v13
	v_lshlrev_b32_e32 v1, 2, v14
	.loc	1 26 0
	v_lshlrev_b32_e32 v4, 1, v10
	.loc	1 32 0
	s_wait_alu depctr_va_vcc(0)
	s_delay_alu instid0(VALU_DEP_3) | instskip(SKIP_3) | instid1(VALU_DEP_1)
	v_cndmask_b32_e32 v0, 0x80000000, v0, vcc_lo
	s_wait_alu depctr_va_sdst(0)
	v_cndmask_b32_e64 v1, 0x80000000, v1, s0
	.loc	1 26 0
	v_and_or_b32 v4, 0xfe, v4, s8
	v_or_b32_e32 v5, 1, v4
	.loc	1 34 0
	v_lshlrev_b32_e32 v6, 2, v4
	.loc	1 33 0
	v_cmp_gt_i32_e64 s2, s14, v4
	.loc	1 31 0
	s_barrier_wait -1
	global_inv scope:SCOPE_SE
	.loc	1 32 0
	s_clause 0x1
	buffer_load_b32 v0, v0, s[16:19], null offen
	buffer_load_b32 v1, v1, s[16:19], null offen
	.loc	1 31 0
	ds_load_b32 v2, v8
	ds_load_b32 v3, v12 offset:512
	.loc	1 34 0
	v_lshlrev_b32_e32 v7, 2, v5
	.loc	1 33 0
	v_cmp_gt_i32_e64 s1, s14, v5
	.loc	1 34 0
	s_and_b32 s17, s11, 0xffff
	s_mov_b32 s16, s10
	.loc	1 35 0
	s_mov_b32 s14, s18
	.loc	1 31 0
	s_wait_dscnt 0x1
	v_sub_nc_u32_e32 v2, v4, v2
	s_wait_dscnt 0x0
	v_sub_nc_u32_e32 v3, v5, v3
	.loc	1 34 0
	v_cndmask_b32_e64 v4, 0x80000000, v6, s2
	.loc	1 34 0
	v_cndmask_b32_e32 v6, -1, v13, vcc_lo
	.loc	1 34 0
	s_wait_alu depctr_va_sdst(0)
	v_cndmask_b32_e64 v5, 0x80000000, v7, s1
	.loc	1 32 0
	v_lshlrev_b32_e32 v2, 4, v2
	v_lshlrev_b32_e32 v3, 4, v3
	.loc	1 34 0
	v_cndmask_b32_e64 v7, -1, v14, s0
	s_delay_alu instid0(VALU_DEP_3) | instskip(NEXT) | instid1(VALU_DEP_3)
	.loc	1 32 0
	v_cndmask_b32_e32 v2, 0, v2, vcc_lo
	v_cndmask_b32_e64 v3, 0, v3, s0
	.loc	1 32 0
	s_wait_loadcnt 0x1
	s_delay_alu instid0(VALU_DEP_2) | instskip(SKIP_1) | instid1(VALU_DEP_2)
	v_add_nc_u32_e32 v0, v2, v0
	s_wait_loadcnt 0x0
	v_add_nc_u32_e32 v1, v3, v1
	.loc	1 34 0
	s_clause 0x1
	buffer_store_b32 v6, v4, s[16:19], null offen
	buffer_store_b32 v7, v5, s[16:19], null offen
	.loc	1 35 0
	s_clause 0x1
	buffer_store_b32 v0, v4, s[12:15], null offen
	buffer_store_b32 v1, v5, s[12:15], null offen
	.loc	1 35 0
	s_endpgm
	.section	.rodata,"a",@progbits
	.amdhsa_kernel schedule_kernel
		.amdhsa_group_segment_fixed_size 0
		.amdhsa_private_segment_fixed_size 0
		.amdhsa_kernarg_size 48
		.amdhsa_user_sgpr_count 2
		.amdhsa_user_sgpr_dispatch_ptr 0
		.amdhsa_user_sgpr_queue_ptr 0
		.amdhsa_user_sgpr_kernarg_segment_ptr 1
		.amdhsa_user_sgpr_dispatch_id 0
		.amdhsa_user_sgpr_private_segment_size 0
		.amdhsa_wavefront_size32 1
		.amdhsa_uses_dynamic_stack 0
		.amdhsa_enable_private_segment 0
		.amdhsa_system_sgpr_workgroup_id_x 1
		.amdhsa_system_sgpr_workgroup_id_y 1
		.amdhsa_system_sgpr_workgroup_id_z 1
		.amdhsa_system_sgpr_workgroup_info 0
		.amdhsa_system_vgpr_workitem_id 0
		.amdhsa_next_free_vgpr 22
		.amdhsa_next_free_sgpr 20
		.amdhsa_reserve_vcc 1
		.amdhsa_float_round_mode_32 0
		.amdhsa_float_round_mode_16_64 0
		.amdhsa_float_denorm_mode_32 3
		.amdhsa_float_denorm_mode_16_64 3
		.amdhsa_fp16_overflow 0
		.amdhsa_workgroup_processor_mode 1
		.amdhsa_memory_ordered 1
		.amdhsa_forward_progress 1
		.amdhsa_inst_pref_size 14
		.amdhsa_round_robin_scheduling 0
		.amdhsa_exception_fp_ieee_invalid_op 0
		.amdhsa_exception_fp_denorm_src 0
		.amdhsa_exception_fp_ieee_div_zero 0
		.amdhsa_exception_fp_ieee_overflow 0
		.amdhsa_exception_fp_ieee_underflow 0
		.amdhsa_exception_fp_ieee_inexact 0
		.amdhsa_exception_int_div_zero 0
	.end_amdhsa_kernel
	.text
	.text
	.text
	.amdgpu_metadata
---
amdhsa.kernels:
  - .args:
      - .address_space:  global
        .offset:         0
        .size:           8
        .value_kind:     global_buffer
      - .address_space:  global
        .offset:         8
        .size:           8
        .value_kind:     global_buffer
      - .address_space:  global
        .offset:         16
        .size:           8
        .value_kind:     global_buffer
      - .offset:         24
        .size:           4
        .value_kind:     by_value
      - .offset:         28
        .size:           4
        .value_kind:     by_value
      - .address_space:  global
        .offset:         32
        .size:           8
        .value_kind:     global_buffer
      - .address_space:  global
        .offset:         40
        .size:           8
        .value_kind:     global_buffer
    .group_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .kernarg_segment_size: 48
    .max_flat_workgroup_size: 128
    .name:           schedule_kernel
    .private_segment_fixed_size: 0
    .sgpr_count:     22
    .sgpr_spill_count: 0
    .symbol:         schedule_kernel.kd
    .uniform_work_group_size: 1
    .uses_dynamic_stack: false
    .vgpr_count:     22
    .vgpr_spill_count: 0
    .wavefront_size: 32
    .workgroup_processor_mode: 1
amdhsa.target:   amdgcn-amd-amdhsa--gfx1201
amdhsa.version:
  - 1
  - 2
...
	.end_amdgpu_metadata
